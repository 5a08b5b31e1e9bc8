"""U+0000, which PostgreSQL cannot hold, is the caller's mistake on every route, whatever the database."""

import json
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.server.local import local_server
from tests.tiny_model import write_tiny_model

pytestmark = pytest.mark.asyncio(loop_scope="session")

DOCUMENT = json.loads((Path(__file__).parents[4] / "docs/openapi.json").read_text())


@pytest.fixture(params=["sqlite", "postgresql"])
async def client(request, tmp_path):
    with ExitStack() as opened:
        url = f"sqlite:///{tmp_path}/edits.db"
        if request.param == "postgresql":
            url = opened.enter_context(request.getfixturevalue("postgres").database())
        async with local_server(url, write_tiny_model(tmp_path / "model")) as server, server.client() as client:
            yield client


def operations():
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            if path.startswith("/v1/"):
                yield method, path, operation


def fields_of(operation):
    """Of a body, and those of them that it must have."""
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if body is None:
        return [], []
    schema = DOCUMENT["components"]["schemas"][body["schema"]["$ref"].rpartition("/")[2]]
    return schema["properties"], schema.get("required", [])


def refused(answer, *params):
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "invalid_value"), answer.text
    assert error["param"] in params, answer.text
    assert "U+0000" in error["message"]


async def test_in_a_path_a_query_or_a_body_it_is_refused_by_name(client):
    tried = {"path": 0, "query": 0, "body": 0}
    for method, path, operation in operations():
        filled = path.replace("{", "").replace("}", "")
        for parameter in operation.get("parameters", ()):
            name, place = parameter["name"], parameter["in"]
            if place == "path":
                at = path.replace(f"{{{name}}}", "a%00b").replace("{", "").replace("}", "")
                refused(await client.request(method, at), name)
            elif place == "query":
                refused(await client.request(method, filled, params={name: "a\0b"}), name)
            tried[place] = tried.get(place, 0) + 1
        fields, required = fields_of(operation)
        for name in fields:
            for value in ("a\0b", ["\0"], [{"a": ["\0"]}], {"\0": 1}, {"a": {"b": "\0"}}):
                body = dict.fromkeys([*required, name], value)
                refused(await client.request(method, filled, json=body), *body)
                tried["body"] += 1
    assert min(tried["path"], tried["query"], tried["body"]) > 20, tried


async def test_an_edits_provenance_and_what_it_supersedes_are_text(client):
    for field, value in (("source", {"url": "https://a\0"}), ("supersedes", ["edit_\0"]), ("author", "\0")):
        refused(await client.post("/v1/edits", json={"text": "Pump Z9 is red.", field: value}), field)
