"""What every route of the admin port keeps: conditions, pages for the openai package, request ids, known names."""

import json
from pathlib import Path

import httpx
import pytest
from openai import AsyncOpenAI, BaseModel
from openai.pagination import AsyncCursorPage

from tests.server.local import local_server
from tests.tiny_model import write_tiny_model

pytestmark = pytest.mark.asyncio(loop_scope="session")

DOCUMENT = json.loads((Path(__file__).parents[4] / "docs/openapi.json").read_text())
FACT = {"text": "The warranty of pump Z9 is 36 months."}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
async def server(database_url, model):
    async with local_server(database_url, model) as running:
        yield running


@pytest.fixture
async def client(server):
    async with server.client() as client:
        yield client


class Item(BaseModel):
    id: str


async def test_of_two_who_read_the_same_version_one_writes(client):
    edit = (await client.post("/v1/edits", json=FACT)).json()
    read = await client.get(f"/v1/edits/{edit['id']}")
    assert read.headers["etag"] == '"1"'
    path, condition = f"/v1/edits/{edit['id']}", {"if-match": read.headers["etag"]}
    first = await client.post(path, json={"text": "It is 24 months."}, headers=condition)
    assert (first.status_code, first.headers["etag"], first.json()["version"]) == (202, '"2"', 2)
    for second in (
        await client.post(path, json={"text": "It is 12 months."}, headers=condition),
        await client.post(f"{path}/retire", headers=condition),
    ):
        assert second.status_code == 412
        assert second.json()["error"] | {"message": ""} == {
            "message": "", "type": "invalid_request_error", "param": "If-Match", "code": "etag_mismatch",
        }  # fmt: skip
        assert "version 2" in second.json()["error"]["message"]
    assert (await client.get(path)).json()["text"] == "It is 24 months."
    retired = await client.post(f"{path}/retire", headers={"if-match": '"1", "2"'})
    assert (retired.status_code, retired.json()["status"]) == (200, "retired")


async def test_a_repeated_write_is_answered_although_its_condition_holds_no_more(client):
    edit = (await client.post("/v1/edits", json=FACT)).json()
    headers = {"if-match": '"1"', "idempotency-key": "k"}
    answers = [
        await client.post(f"/v1/edits/{edit['id']}", json={"text": "It is 24 months."}, headers=headers)
        for _ in range(2)
    ]
    assert [(answer.status_code, answer.json()["version"]) for answer in answers] == [(202, 2), (202, 2)]


async def test_a_set_that_has_changed_is_not_deleted(client):
    created = await client.post("/v1/edit_sets", json={"name": "support"})
    assert created.headers["etag"] == '"0"'
    body = FACT | {"edit_set": "support"}
    assert (await client.post("/v1/edits", json=body, params={"wait": "active"})).status_code == 201
    refused = await client.delete("/v1/edit_sets/support", headers={"if-match": '"0"'})
    assert (refused.status_code, refused.json()["error"]["code"]) == (412, "etag_mismatch")
    now = await client.get("/v1/edit_sets/support")
    assert now.headers["etag"] == '"1"'
    assert (await client.delete("/v1/edit_sets/support", headers={"if-match": now.headers["etag"]})).status_code == 200


async def test_a_condition_does_not_tell_whether_another_project_has_the_id(client):
    for headers in ({}, {"if-match": '"1"'}):
        assert (await client.post("/v1/edits/edit_nobodys", json=FACT, headers=headers)).status_code == 404


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_the_openai_packages_pager_walks_every_list(server, client, order):
    names = [f"set-{i}" for i in range(7)]
    for name in names:
        await client.post("/v1/edit_sets", json={"name": name})
    edits = [(await client.post("/v1/edits", json={"text": f"Fact {i}."})).json()["id"] for i in range(7)]
    sets = [(await client.get(f"/v1/edit_sets/{name}")).json()["id"] for name in [*names, "default"]]
    http = httpx.AsyncClient(transport=httpx.ASGITransport(app=server.app))
    async with AsyncOpenAI(base_url="http://test/v1", api_key="none", http_client=http, max_retries=0) as openai:
        for path, ids in (("/edits", edits), ("/edit_sets", sets)):
            pages = openai.get_api_list(
                path, model=Item, page=AsyncCursorPage[Item],
                options={"params": {"limit": 3, "order": order}}, method="get",
            )  # fmt: skip
            assert [item.id async for item in pages] == (ids if order == "asc" else ids[::-1])


async def test_every_answer_has_a_request_id(client):
    given = await client.get("/v1/edits", headers={"x-request-id": "mine-1"})
    assert given.headers["x-request-id"] == "mine-1"
    for answer in (await client.get("/v1/edits/none"), await client.post("/v1/edits", json={"txt": 1})):
        assert answer.headers["x-request-id"].startswith("req_")


def operations():
    return [
        (method, path, operation)
        for path, methods in DOCUMENT["paths"].items()
        for method, operation in methods.items()
        if path.startswith("/v1/")
    ]


@pytest.mark.parametrize(("method", "path", "operation"), operations(), ids=lambda value: str(value)[:60])
async def test_unknown_names_are_errors_on_every_route(client, method, path, operation):
    path = path.replace("{", "").replace("}", "")
    body = operation.get("requestBody", {}).get("content", {})
    json_body = {"nonsense": 1} if "application/json" in body else None
    asked = await client.request(method, path, params={"nonsense": "1"}, json=json_body and FACT | {"name": "a"})
    wrong = [asked] if json_body is None else [asked, await client.request(method, path, json=json_body)]
    for answer in wrong:
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (400, "unknown_parameter", "nonsense"), error


async def test_a_known_query_with_an_unknown_value_names_itself(client):
    for query, param in (({"limit": 0}, "limit"), ({"order": "up"}, "order"), ({"after": "edit_none"}, "after")):
        answer = await client.get("/v1/edits", params=query)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_labels_over_http(client):
    """Promote, roll back, list, compare, refuse; the replica here takes every delta."""
    ids = []
    for text in ("The warranty of pump Z9 is 36 months.", "Pump Z9 is made in Oslo."):
        answer = await client.post("/v1/edits", json={"text": text, "edit_set": "default"}, params={"wait": "active"})
        ids.append(answer.json()["id"])
    path = "/v1/edit_sets/default/labels/production"
    first = await client.put(path, json={"to": "1"})
    assert (first.status_code, first.headers["etag"], first.json()["reached"]) == (200, '"1"', "active")
    moved = (await client.put(path, json={"to": "head"}, headers={"if-match": '"1"'})).json()
    assert (moved["version"], moved["num_edits"], moved["moves"], moved["previous"]["version"]) == (2, 2, 2, 1)
    late = await client.put(path, json={"to": "1"}, headers={"if-match": '"1"'})
    assert (late.status_code, late.json()["error"]["code"]) == (412, "etag_mismatch")
    assert (await client.get("/v1/edit_sets/default/labels")).json()["data"] == [(await client.get(path)).json()]
    (replica,) = (await client.get("/v1/replicas")).json()["data"]
    assert (replica["positions"][moved["id"]], replica["lag"]) == (2, 0)
    pages = (await client.get("/v1/snapshots", params={"edit_set": "default", "limit": 1})).json()
    assert (pages["data"][0]["labels"], pages["has_more"]) == (["production"], True)
    assert (await client.get(f"/v1/snapshots/{pages['last_id']}")).json() == pages["data"][0]
    diff = (await client.get("/v1/edit_sets/default/diff", params={"from": "1", "to": "production"})).json()
    assert (diff["added"], diff["num_removed"]) == ([{"edit": ids[1], "version": 1}], 0)
    for to, code in (("7", "snapshot_not_found"), ("staging", "label_not_found")):
        refused = await client.put(path, json={"to": to})
        assert (refused.status_code, refused.json()["error"]["code"], refused.json()["error"]["param"]) == (
            404,
            code,
            "to",
        )
    wrong = await client.put("/v1/edit_sets/default/labels/head", json={"to": "1"})
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, "invalid_value")
    gone = await client.delete(path)
    assert (gone.status_code, gone.json()["reached"]) == (200, "active")
    assert (await client.get(path)).status_code == 404
