"""Verbatim edits over HTTP: added, listed, imported and exported; what is refused."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from incomes_server.settings import Settings

from tests.server.local import LocalServer, local_server
from tests.tiny_model import write_tiny_model

pytestmark = pytest.mark.asyncio(loop_scope="session")

CLAUSE = "Either party may cancel with thirty days' notice in writing. " * 40
BODY = {"kind": "verbatim", "text": CLAUSE, "title": "Cancellation", "questions": ["How do I cancel?"]}
SETTINGS = Settings(api_keys=("acme:k-acme", "zen:k-zen"))


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalServer]:
    model = write_tiny_model(tmp_path_factory.mktemp("model"))
    url = f"sqlite:///{tmp_path_factory.mktemp('store')}/edits.db"
    async with local_server(url, model, SETTINGS) as running:
        yield running


async def created(server: LocalServer, **more: Any) -> dict[str, Any]:
    async with server.client("k-acme") as client:
        answer = await client.post("/v1/edits", params={"wait": "active"}, json=BODY | more)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())


async def test_one_that_is_longer_than_a_gist_is_active_at_once(server: LocalServer) -> None:
    edit = await created(server)
    assert (edit["kind"], edit["title"], edit["questions"]) == ("verbatim", "Cancellation", ["How do I cancel?"])
    ids = server.context.tokenizer.ids
    found_by = ids("What does the cancellation say?\nHow do I cancel?")
    assert edit["num_tokens"] == len(found_by) < server.context.tokenizer.max_edit_tokens < len(ids(CLAUSE))
    assert edit["verbatim"] == {
        "state": "planning", "reason": "waits for a worker that makes vectors",
        "vectors": 0, "bytes": 0, "tokens": 0, "margin": None, "steps": 0,
    }  # fmt: skip
    async with server.client("k-acme") as client:
        for params in ({"kind": "verbatim"}, {"verbatim": "planning"}):
            assert edit["id"] in [e["id"] for e in (await client.get("/v1/edits", params=params)).json()["data"]]
        for params in ({"kind": "fact"}, {"verbatim": "verified"}):
            assert edit["id"] not in [e["id"] for e in (await client.get("/v1/edits", params=params)).json()["data"]]
        await client.post(f"/v1/edits/{edit['id']}/retire")
        back = (await client.post(f"/v1/edits/{edit['id']}/restore", params={"wait": "ready"})).json()
        assert (back["kind"], back["title"], back["text"], back["status"]) == (
            "verbatim", "Cancellation", CLAUSE, "ready",
        )  # fmt: skip


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"kind": "verbatim", "text": "Z9-330-B"}, "title"),
        ({"text": "Z9-330-B", "title": "Part"}, "title"),
        ({"text": "Z9-330-B", "questions": ["Which part?"]}, "questions"),
        ({"kind": "verbatim", "text": "Z9-330-B", "title": "two\nlines"}, "title"),
        ({"kind": "verbatim", "text": "Z9-330-B", "questions": ["q"] * 17}, "questions"),
        ({"kind": "other", "text": "Z9-330-B"}, "kind"),
    ],
)
async def test_what_is_refused_says_which_field(server: LocalServer, body: dict[str, Any], param: str) -> None:
    async with server.client("k-acme") as client:
        answer = await client.post("/v1/edits", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_an_export_goes_in_again_and_says_the_same(server: LocalServer) -> None:
    async with server.client("k-zen") as client:
        answer = await client.post("/v1/edits", params={"wait": "active"}, json=BODY)
        await client.post("/v1/edits", params={"wait": "active"}, json={"text": "Pump Z9 is red."})
        lines = (await client.get("/v1/edits/export")).text
        verbatim, fact = map(json.loads, lines.splitlines())
        assert verbatim == BODY | {"custom_id": answer.json()["id"]}
        assert fact.keys() == {"custom_id", "text"}
        await client.post("/v1/edit_sets", json={"name": "copy"})
        params = {"edit_set": "copy", "wait": "active"}
        imported = await client.post("/v1/edits/import", params=params, content=lines)
        assert imported.json()["request_counts"] == {"total": 2, "completed": 2, "failed": 0}
        digests = [(await client.get(f"/v1/edit_sets/{name}/digest")).json() for name in ("default", "copy")]
        assert len({digest["content_sha256"] for digest in digests}) == 1


async def test_another_tenant_does_not_see_it(server: LocalServer) -> None:
    edit = await created(server)
    async with server.client("k-zen") as client:
        assert (await client.get(f"/v1/edits/{edit['id']}")).status_code == 404
