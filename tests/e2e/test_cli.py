"""The command line against a running server."""

import json
import subprocess
import sys

import pytest

from tests.e2e.conftest import ACME, adapter_of

pytestmark = [pytest.mark.e2e, pytest.mark.vllm, pytest.mark.ray]


@pytest.fixture
def incomes(running):
    def run(*args, key=ACME, status=0):
        command = [sys.executable, "-m", "incomes_server.cli", *args]
        env = {"INCOMES_ADMIN_URL": running.process.admin_url, "INCOMES_API_KEY": key, "PATH": "/usr/bin:/bin"}
        done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
        assert done.returncode == status, done.stdout + done.stderr
        return done

    return run


def test_edits_from_the_shell(incomes, tmp_path):
    incomes("edit-set", "create", "shell")
    edit = json.loads(incomes("edit", "add", "The warranty is 36 months.", "-s", "shell", "--json").stdout)
    assert edit["reached"] == "active"
    listed = incomes("edit", "list", "-s", "shell").stdout.split("\t")
    assert listed == [edit["id"], "1", "ready", "The warranty is 36 months.\n"]
    assert "version 2" in incomes("edit", "replace", edit["id"], "The warranty is 24 months.").stdout
    assert "version 2  retired, no replica uses it any more (" in incomes("edit", "retire", edit["id"]).stdout
    assert json.loads(incomes("edit", "get", edit["id"], "--json").stdout)["status"] == "retired"

    lines = [{"custom_id": str(i), "text": f"Fact {i}."} for i in range(250)]
    file = tmp_path / "facts.jsonl"
    file.write_text("\n".join([*map(json.dumps, lines), '{"custom_id": "bad"}']))
    done = incomes("edit", "import", str(file), "-s", "shell", status=1)
    assert "250 of 251 lines imported" in done.stdout
    assert "line 251 (bad)" in done.stderr
    (shell,) = [s for s in json.loads(incomes("edit-set", "list", "--json").stdout) if s["name"] == "shell"]
    assert shell["num_edits"] == 250
    assert len(json.loads(incomes("edit", "list", "-s", "shell", "--limit", "1000", "--json").stdout)) == 251
    assert "deleted, no replica uses it any more" in incomes("edit-set", "delete", "shell").stdout


def test_exit_codes(incomes):
    assert "invalid_api_key" in incomes("edit", "list", key="wrong", status=1).stderr
    assert "edit_not_found" in incomes("edit", "get", "edit_nothing", status=1).stderr
    assert "unknown" not in incomes("edit", "add", " ", status=2).stdout


def test_doctor_asks_the_server(incomes, running, tiny_model):
    done = incomes("doctor", str(tiny_model), *adapter_of(tiny_model), "--url", running.process.admin_url)
    assert "running server: ready" in done.stdout
    assert "FAIL" not in done.stdout
