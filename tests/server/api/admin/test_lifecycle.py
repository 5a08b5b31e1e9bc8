"""What becomes of an edit, over HTTP: superseded, retired and restored, erased."""

import asyncio
import time

import pytest
from incomes_server.api.admin.times import format_rfc3339
from incomes_server.auth.keys import ApiKey
from incomes_server.settings import Settings

from tests.eventually import SOON_S
from tests.server.local import local_server
from tests.tiny_model import write_tiny_model

pytestmark = pytest.mark.asyncio(loop_scope="session")

FACT = {"text": "The warranty of pump Z9 is 36 months."}
ACTIVE = {"wait": "active", "timeout_s": 60}
KEYS = (ApiKey("acme", "a-key"), ApiKey("zen", "z-key"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
async def server(database_url, model):
    async with local_server(database_url, model, Settings(api_keys=KEYS)) as running:
        yield running


@pytest.fixture
async def client(server):
    async with server.client("a-key") as client:
        yield client


async def added(client, **body):
    answer = await client.post("/v1/edits", json=FACT | body, params=ACTIVE)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def num_edits(client):
    return (await client.get("/v1/edit_sets/default")).json()["num_edits"]


async def test_an_edit_says_where_it_comes_from(client):
    said = {"source": {"url": "https://erp.example/z9", "document_id": "erp-9"}, "author": "kim"}
    edit = await added(client, **said, justification="the contract of May")
    other = await added(client)
    assert {name: edit[name] for name in said} == said
    assert (other["source"], other["author"], other["justification"], other["supersedes"]) == (None, None, None, [])
    for query in ({"author": "kim"}, {"document_id": "erp-9"}):
        found = (await client.get("/v1/edits", params=query)).json()["data"]
        assert [item["id"] for item in found] == [edit["id"]]
    assert (await client.get("/v1/edits", params={"author": "lee"})).json()["data"] == []
    wrong = await client.post("/v1/edits", json=FACT | {"source": {"url": "erp/z9"}})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "source.url")


async def test_a_new_edit_takes_the_place_of_others(client):
    old = await added(client)
    new = await added(client, supersedes=[old["id"]])
    gone = (await client.get(f"/v1/edits/{old['id']}")).json()
    assert (gone["status"], gone["status_reason"]) == ("superseded", f"superseded by {new['id']}")
    assert (gone["set_version"], await num_edits(client)) == (new["set_version"], 1)
    for named, status in ((old["id"], 409), ("edit_nobodys", 404)):
        answer = await client.post("/v1/edits", json=FACT | {"supersedes": [named]})
        assert (answer.status_code, answer.json()["error"]["param"]) == (status, "supersedes")


async def test_in_an_import_only_the_wrong_line_fails(client):
    lines = b'{"custom_id": "1", "text": "a b"}\n{"custom_id": "2", "text": "c d", "supersedes": ["edit_nobodys"]}'
    answer = (await client.post("/v1/edits/import", content=lines)).json()
    assert [line["error"] and line["error"]["code"] for line in answer["data"]] == [None, "edit_not_found"]


async def test_an_edit_waits_for_its_time_and_ends_with_it(client):
    now = int(time.time())
    begin, end = (format_rfc3339(now + 5), format_rfc3339(now + 10))
    body = FACT | {"effective_from": begin, "expires_at": end}
    waiting = await client.post("/v1/edits", json=body, params=ACTIVE)
    assert (waiting.status_code, waiting.json()["reached"], waiting.json()["held"]) == (202, "ready", "scheduled")
    assert {name: waiting.json()[name] for name in body} == body
    path = f"/v1/edits/{waiting.json()['id']}"
    while (seen := (await client.get(path)).json())["held"]:
        await asyncio.sleep(0.05)
    assert (await num_edits(client), 0 <= time.time() - now - 5 < SOON_S) == (1, True)
    while (seen := (await client.get(path)).json())["status"] == "ready":
        await asyncio.sleep(0.05)
    assert (seen["status"], seen["status_reason"], await num_edits(client)) == ("retired", "expired", 0)
    assert 0 <= time.time() - now - 10 < SOON_S
    for wrong in ({"expires_at": begin, "effective_from": end}, {"expires_at": "tomorrow"}):
        refused = await client.post("/v1/edits", json=FACT | wrong)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "expires_at")


async def test_a_retired_edit_comes_back(client):
    edit = await added(client)
    path = f"/v1/edits/{edit['id']}"
    refused = await client.post(f"{path}/restore")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "edit_conflict")
    await client.post(f"{path}/retire")
    assert await num_edits(client) == 0
    stale = await client.post(f"{path}/restore", headers={"if-match": '"7"'})
    assert stale.status_code == 412
    again = [await client.post(f"{path}/restore", params=ACTIVE, headers={"idempotency-key": "k"}) for _ in range(2)]
    assert [(answer.status_code, answer.json()["version"], answer.headers["etag"]) for answer in again] == [
        (200, 2, '"2"')] * 2  # fmt: skip
    assert (again[0].json()["text"], again[0].json()["reached"]) == (FACT["text"], "active")
    assert await num_edits(client) == 1


async def test_an_erased_edit_leaves_a_record_without_content(server, client):
    edit = await added(client, author="kim", metadata={"a": "b"}, external_id="doc-1")
    path = f"/v1/edits/{edit['id']}"
    async with server.client("z-key") as foreign:
        assert (await foreign.delete(path)).status_code == 404
        assert (await foreign.post(f"{path}/restore")).status_code == 404
    assert (await client.delete(path, headers={"if-match": '"2"'})).status_code == 412
    erased = [await client.delete(path) for _ in range(2)]
    done = {"id": edit["id"], "object": "edit.deleted", "deleted": True, "reached": "active"}
    assert [(answer.status_code, answer.json()) for answer in erased] == [(200, done)] * 2
    left = (await client.get(path)).json()
    assert (left["status"], left["text"], left["metadata"], left["author"], left["external_id"]) == (
        "erased", "", {}, None, None)  # fmt: skip
    assert (left["created_at"], left["version"]) == (edit["created_at"], 1)
    assert (await client.post(f"{path}/restore")).status_code == 409
    assert await num_edits(client) == 0
    assert await added(client, external_id="doc-1")
