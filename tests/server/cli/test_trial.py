"""`incomes edit validate`, `incomes test-suite`, `incomes eval-run` and the switches, against a real admin app."""

import asyncio
import json

import pytest
from incomes_server.cli.main import app
from incomes_server.client import Client
from incomes_server.edits.questions import Asked, AskedQuestion
from typer.testing import CliRunner

from tests.server.local import local_server, over_http
from tests.tiny_model import write_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("model"))


def run(*args, status=0):
    found = CliRunner().invoke(app, list(args))
    assert found.exit_code == status, found.output
    return found.output


def use(folder):
    edit = json.loads(run("edit", "add", "Pump Z9 is red.", "--json"))
    assert run("edit", "validate", "Pump Z9 is blue.") == ""
    assert "edit_set_not_found" in run("edit", "validate", "Pump Z9 is blue.", "--edit-set", "none", status=1)
    assert "no engine" in run("edit", "preview", "Pump Z9 is blue.", "--question", "Which colour?", status=3)
    questions = folder / "suite.jsonl"
    questions.write_text('{"question": "Which colour?", "expected": ["red"]}\n\n')
    assert run("test-suite", "set", "default", str(questions), "--no-generated").endswith("1 questions\n")
    suite = json.loads(run("test-suite", "get", "default", "--json"))
    assert (suite["questions"][0]["expected"], suite["generated"], suite["required"]) == (["red"], False, False)
    questions.write_text("no JSON")
    assert "is not JSONL" in run("test-suite", "set", "default", str(questions), status=2)
    assert "no engine" in run("eval-run", "create", "default", status=3)
    for noun, name in (("edit", [edit["id"]]), ("edit-set", ["default"]), ("server", [])):
        assert run(noun, "disable", *name).endswith("switched off\n")
        assert run(noun, "enable", *name).endswith("switched on\n")
    assert run("server", "get") == "disabled\tFalse\n"


def read_runs(run_id):
    (line,) = run("eval-run", "list", "default").splitlines()
    assert line.split("\t")[0::2] == [run_id, "failed", "2"]
    first, *answers = run("eval-run", "get", run_id).splitlines()
    assert first.endswith("failed, 1 of 2 right")
    assert answers == ["yes\tWhich colour?\tred\tIt is red.", "no\tHow long?\t36 months | 3 years\tNobody knows."]
    assert json.loads(run("eval-run", "get", run_id, "--json"))["passed"] == 1


async def test_try_then_promote(database_url, model, tmp_path, monkeypatch):
    async with local_server(database_url, model) as server, over_http(server.app) as url:
        with Client(url) as client:  # a command leaves its own to the end of the process
            for module in ("edit", "switch", "trial"):
                monkeypatch.setattr(f"incomes_server.cli.{module}.connect", lambda *_: client)
            await asyncio.to_thread(use, tmp_path)
            store = server.context.store
            state = await store.state_at("default", "default", "head")
            asked = (
                Asked(AskedQuestion("Which colour?", ("red",)), "It is red."),
                Asked(AskedQuestion("How long?", ("36 months", "3 years")), "Nobody knows."),
            )
            made = await store.record_run("default", state, asked, request_id="r")
            await asyncio.to_thread(read_runs, made.id)
