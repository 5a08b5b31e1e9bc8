"""The command line without a server: fast start, documents, exit codes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
import typer
from incomes_server.api.admin.schemas import Deleted
from incomes_server.cli import split_passed_on
from incomes_server.cli.lazy import LAB
from incomes_server.cli.main import app
from incomes_server.cli.output import show_removal
from incomes_server.settings import Settings
from typer.testing import CliRunner

DOCS = Path(__file__).parents[3] / "docs"
COMMON = {"--url", "--api-key", "--json", "--help"}


def commands(command, path="incomes"):
    if isinstance(command, click.Group) or hasattr(command, "commands"):
        for name, sub in command.commands.items():
            yield from commands(sub, f"{path} {name}")
    else:
        yield path, command


ALL = list(commands(typer.main.get_command(app)))


def run(*args, **env):
    return CliRunner().invoke(app, list(args), env=env)


@pytest.mark.parametrize(("path", "command"), ALL, ids=[path for path, _ in ALL])
def test_every_command_and_option_is_documented(path, command):
    text = (DOCS / "cli.md").read_text()
    row = next((line for line in text.splitlines() if line.startswith(f"| `{path}")), "")
    assert row, f"{path} is not in docs/cli.md"
    options = {max(p.opts, key=len) for p in command.params if p.param_type_name == "option"}
    missing = [option for option in options - COMMON if option.lstrip("-") not in row]
    assert not missing


@pytest.mark.parametrize("name", list(Settings.model_fields))
def test_every_setting_is_documented(name):
    assert f"`{name}`" in (DOCS / "settings.md").read_text()


@pytest.mark.parametrize("args", ["--help", "edit --help", "--version", "adap"])
def test_help_is_fast_because_nothing_heavy_is_imported(args):
    code = (
        "import sys; from incomes_server.cli import main\n"
        f"try: main({args.split()!r})\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'vllm', 'ray', 'transformers', 'openai', 'sqlalchemy') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).splitlines()[-1] == "[]"


def test_help_lists_the_labs_commands_with_a_line_each():
    shown = run("--help", COLUMNS="200").output
    assert all(name in shown and lazy.help in shown for name, lazy in LAB.items())


def test_a_lazy_command_has_its_own_options_and_errors():
    assert "--edits" in run("plan", "--help", COLUMNS="200", TERMINAL_WIDTH="200").output
    done = run("transplant", "a", "b", "--method", "none")
    assert (done.exit_code, "no method 'none'" in done.output) == (2, True), done.output


def test_vllm_flags_come_after_the_dashes():
    assert split_passed_on(["serve", "m", "--", "--max-model-len", "9"]) == (["serve", "m"], ["--max-model-len", "9"])
    assert split_passed_on(["edit", "add", "--", "-x"]) == (["edit", "add", "--", "-x"], [])


def test_no_server_is_exit_3():
    result = run("edit", "list", "--url", "http://127.0.0.1:9")
    assert result.exit_code == 3
    assert "incomes serve" in result.stderr


@pytest.mark.parametrize("args", [("edit", "add"), ("nonsense",), ("serve", "--prot", "1")])
def test_wrong_usage_is_exit_2(args):
    assert run(*args).exit_code == 2


def test_serve_refuses_a_reachable_address_without_a_key():
    result = run("serve", "--host", "0.0.0.0")
    assert result.exit_code == 2
    assert "API key" in result.stderr


def test_serve_refuses_a_folder_without_a_model(tmp_path):
    command = [sys.executable, "-m", "incomes_server.cli", "serve", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "has no config.json" in done.stderr) == (2, True), done.stderr


def test_config_show_masks_secrets():
    store = "postgresql://user:hunter2@db/edits"
    more = {"INCOMES_RAY_TOKEN": "mellon", "INCOMES_GIST_STORAGE": "s3://me:abracadabra@bucket/gists"}
    result = run("config", "show", "--json", INCOMES_API_KEYS="acme:topsecret", INCOMES_EDIT_STORE=store, **more)
    shown = json.loads(result.stdout)
    assert shown["api_keys"] == {"value": "acme:***", "origin": "env"}
    assert not {"hunter2", "mellon", "abracadabra"} & set(re.findall(r"\w+", result.stdout))
    assert shown["port"] == {"value": 8000, "origin": "default"}


def test_doctor_names_a_model_without_adapter(tmp_path):
    result = run("doctor", str(tmp_path), "--json")
    checks = {check["name"]: check for check in json.loads(result.stdout)["checks"]}
    assert result.exit_code == 1
    assert "no config.json" in checks["edit adapter"]["detail"]
    assert checks["vLLM internals"]["ok"] is True
    assert checks["running server"]["ok"] is None


def test_doctor_sees_a_plugin_list_without_us(monkeypatch):
    result = run("doctor", "--json", VLLM_PLUGINS="lora_filesystem_resolver")
    checks = {check["name"]: check for check in json.loads(result.stdout)["checks"]}
    assert checks["VLLM_PLUGINS"]["ok"] is False


@pytest.mark.parametrize("command", ["sys.stdout.write(text)", "print_table(('a',), [(text,)])", "err.print(text)"])
def test_any_text_is_printed_in_any_locale(command):
    code = (
        "import sys; from incomes_server.cli import main, output; from incomes_server.cli.output import *\n"
        "sys.argv = ['incomes', '--help']\n"
        "try: main()\nexcept SystemExit: pass\n"
        f"text = '\\u0421\\u0442\\u043e \\ud800'; {command}"
    )
    env = {
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONIOENCODING": "",
        "PATH": "/usr/bin:/bin",
    }
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=env, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    assert b"\\u0421" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("args", "status", "said"),
    [
        (["edit", "add", "\udcff", "--url", "http://127.0.0.1:9"], 2, "encoding"),
        (["edit", "list", "--url", "http://x:port"], 2, "--url"),
        (["edit", "list", "--url", "nonsense"], 3, "--url"),
    ],
)
def test_what_a_terminal_sends_is_an_error_and_no_traceback(args, status, said):
    done = run(*args)
    assert (done.exit_code, said in done.output) == (status, True), done.output


def test_a_removal_says_whether_a_replica_may_still_use_the_edit(capsys):
    show_removal(
        Deleted(id="edit_1", object="x", reached="active"), "version 2  retired", as_json=False, took=" (5 ms)"
    )
    assert capsys.readouterr().out == "edit_1  version 2  retired, no replica uses it any more (5 ms)\n"
    with pytest.raises(typer.Exit) as left:
        show_removal(Deleted(id="edit_1", object="x", reached="ready"), "version 2  retired", as_json=False)
    said = capsys.readouterr()
    assert left.value.exit_code == 1
    assert said.out == "edit_1  version 2  retired, a replica may still use it\n"
    assert "active" not in said.out + said.err


@pytest.mark.parametrize(
    ("words", "said"),
    [("incomes ed", "edit-set"), ("incomes edit list --status ", "retired"), ("incomes plan --ed", "--edits")],
)
def test_the_shell_completes_commands_options_and_values(words, said):
    env = {"_INCOMES_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    code = "import sys; sys.argv = ['incomes']; from incomes_server.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **env}, check=False
    )
    assert said in done.stdout.split(), done.stderr
