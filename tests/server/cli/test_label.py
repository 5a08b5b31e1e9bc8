"""`incomes label` and `incomes snapshot` against a real admin app."""

import asyncio
import json

import pytest
from incomes_server.cli.main import app
from incomes_server.client import Client
from typer.testing import CliRunner

from tests.server.local import local_server, over_http
from tests.tiny_model import write_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("model"))


def use(client):
    def run(*args, status=0):
        found = CliRunner().invoke(app, list(args))
        assert found.exit_code == status, found.output
        return found.output

    for text in ("Pump Z9 is red.", "Pump Z9 is made in Oslo."):
        client.edits.add(text)
    assert "at version 1 (1 edits" in run("label", "move", "production", "1")
    assert run("label", "move", "production").rstrip().endswith("active")
    assert run("label", "list").split("\t")[:3] == ["production", "2", "2"]
    assert json.loads(run("label", "rollback", "production", "--json"))["version"] == 1
    assert [line.split("\t")[1:] for line in run("snapshot", "list").splitlines()] == [
        ["2", "2", ""],
        ["1", "1", "production"],
    ]
    (line,) = run("snapshot", "diff", "production").splitlines()
    assert line.startswith("+\tedit_")
    assert json.loads(run("snapshot", "diff", "head", "1", "--json"))["num_removed"] == 1
    run("label", "move", "staging", "2")
    assert "has not been moved yet" in run("label", "rollback", "staging", status=1)
    assert "no replica uses it" in run("label", "delete", "staging")
    run("label", "move", "production", "9", status=1)


async def test_promote_roll_back_compare(database_url, model, monkeypatch):
    async with local_server(database_url, model) as server, over_http(server.app) as url:
        with Client(url) as client:  # a command leaves its own to the end of the process
            monkeypatch.setattr("incomes_server.cli.label.connect", lambda *_: client)
            await asyncio.to_thread(use, client)
