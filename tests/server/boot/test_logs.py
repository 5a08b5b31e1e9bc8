"""Lines of text or of JSON, in a process of its own: logging is set up once."""

import json
import subprocess
import sys

import pytest

SCRIPT = """
import logging, sys
from incomes_server.boot.logs import progress, set_up_logging
from incomes_server.settings import load_settings
settings = load_settings(log_format=sys.argv[1], log_level="info").settings
set_up_logging(settings)
if sys.argv[1] == "json":
    progress("[  1.0 s] started")
logging.getLogger("incomes.serve").warning("said %s", "this")
logging.getLogger("incomes.requests").info("request", extra={"status": 200})
logging.getLogger("httpx").info("noise")
if sys.argv[1] == "json":
    import warnings
    warnings.warn("careful")
"""


def run(log_format):
    done = subprocess.run([sys.executable, "-c", SCRIPT, log_format], capture_output=True, text=True, check=True)
    return done.stdout.splitlines(), done.stderr.splitlines()


def test_json_is_one_object_a_line_on_both_streams():
    out, err = run("json")
    assert [json.loads(line)["message"] for line in out] == ["[  1.0 s] started"]
    lines = [json.loads(line) for line in err]
    assert [(line["level"], line["logger"], line["message"]) for line in lines] == [
        ("WARNING", "incomes.serve", "said this"),
        ("INFO", "incomes.requests", "request"),
        ("WARNING", "py.warnings", lines[2]["message"]),
    ]
    assert "UserWarning: careful" in lines[2]["message"]
    assert lines[1]["status"] == 200


def test_text_has_no_line_for_each_request():
    out, err = run("text")
    assert out == []
    assert len(err) == 1
    assert err[0].endswith("WARNING incomes.serve: said this")


def test_vllm_takes_the_same_lines():
    """The file that VLLM_LOGGING_CONFIG_PATH names is a configuration of Python's logging."""
    from logging.config import dictConfigClass

    from incomes_server.boot.logs import ENGINE_LOG

    config = json.loads(ENGINE_LOG.read_text())
    formatter = dictConfigClass(config).configure_formatter(config["formatters"]["json"])
    assert type(formatter).__name__ == "JsonLines"


@pytest.mark.parametrize(("log_format", "path"), [("json", "engine_log.json"), ("text", None)])
def test_the_engine_is_told(log_format, path):
    from incomes_server.boot.engine_args import prepare_vllm
    from incomes_server.settings import load_settings

    environment = {}
    prepare_vllm(load_settings(log_format=log_format).settings, [], environment, cpu=True)
    assert environment.get("VLLM_LOGGING_CONFIG_PATH", "").rpartition("/")[2] == (path or "")
