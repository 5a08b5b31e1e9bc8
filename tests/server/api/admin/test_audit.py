"""Every mutating route of the API leaves exactly one audit event, also when the request is sent again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from incomes_server.auth.master_key import MasterKey
from incomes_server.edits.audit import AuditEvent, Change, first_break
from incomes_server.settings import Settings

from tests.server.api.admin.serving import serving
from tests.tiny_model import write_tiny_model

pytestmark = pytest.mark.ray

LINES = b'{"custom_id": "1", "text": "Pump Z9 is made in Oslo."}'
UPLOAD: dict[str, Any] = {"files": {"file": ("kb.jsonl", LINES)}, "data": {"purpose": "edits"}}
CALLS: dict[str, dict[str, Any]] = {
    "POST /v1/edits": {"json": {"text": "The warranty of pump Z9 is 36 months."}},
    "POST /v1/edits/import": {"content": b'{"custom_id": "1", "text": "Pump Z9 is made in Oslo."}'},
    "POST /v1/edits/{edit_id}": {"json": {"text": "The warranty of pump Z9 is 48 months."}},
    "POST /v1/edits/{edit_id}/retire": {},
    "POST /v1/edits/{edit_id}/restore": {},
    "POST /v1/edits/{edit_id}/recall": {},
    "DELETE /v1/edits/{edit_id}": {},
    "POST /v1/edits/{edit_id}/disable": {},
    "POST /v1/edits/{edit_id}/enable": {},
    "POST /v1/edits/{edit_id}/approve": {"headers": {"if-match": '"1"'}},
    "POST /v1/edit_sets/{edit_set}/disable": {},
    "POST /v1/edit_sets/{edit_set}/enable": {},
    "POST /v1/server/disable": {},
    "POST /v1/server/enable": {},
    "POST /v1/edit_sets": {"json": {"name": "another"}},
    "DELETE /v1/edit_sets/{edit_set}": {},
    "PUT /v1/edit_sets/{edit_set}/test_suite": {"json": {"least_share": 0.5}},
    "PUT /v1/edit_sets/{edit_set}/labels/{label}": {"json": {"to": "head"}},
    "DELETE /v1/edit_sets/{edit_set}/labels/{label}": {},
    "POST /v1/projects": {"json": {"name": "umbrella"}},
    "POST /v1/projects/{name}": {"json": {"writes_per_minute": 1000}},
    "POST /v1/projects/{name}/data_key/rotate": {},
    "POST /v1/api_keys": {"json": {"name": "bot", "scopes": ["chat"]}},
    "POST /v1/api_keys/{key_id}/rotate": {"json": {"grace_s": 60}},
    "DELETE /v1/api_keys/{key_id}": {},
    "POST /v1/files": UPLOAD,
    "DELETE /v1/files/{file_id}": {},
    "POST /v1/batches": {"json": {"input_file_id": "{file_id}", "endpoint": "/v1/edits"}},
    "POST /v1/batches/{batch_id}/cancel": {},
    "DELETE /v1/projects/{name}/data_key": {},  # last: it deletes the default set, which others would make
}
"""A call of each route that changes something: what is sent. Objects in the path are made by `made`."""
CHANGES_NOTHING = {"POST /v1/edits/validate", "POST /v1/edits/preview"}
ASKS_AN_ENGINE = {"POST /v1/eval_runs"}
"""`tests/e2e/test_evaluation.py` looks for its event."""
"""Routes that are no GET and write nothing."""
KEYS = {"authorization": "Bearer k-acme"}


def mutating_routes() -> set[str]:
    paths = json.loads((Path(__file__).parents[4] / "docs" / "openapi.json").read_text())["paths"]
    return {f"{m.upper()} {path}" for path, methods in paths.items() for m in methods if m != "get"}


def test_every_mutating_route_is_called() -> None:
    assert mutating_routes() == CALLS.keys() | CHANGES_NOTHING | ASKS_AN_ENGINE


@pytest.fixture(scope="module")
def masters() -> tuple[MasterKey, ...]:
    return (MasterKey(bytes(32)),)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


async def made(client: Any, name: str, route: str) -> dict[str, str]:
    """New objects that a path may name, in a state in which the route does something."""
    await client.post("/v1/edits", json={"text": "The default set is there, whatever was erased."})
    new_set = {"name": name, "two_person": route.endswith("/approve")}
    edit_set = (await client.post("/v1/edit_sets", json=new_set)).json()["id"]
    body = {"text": "The colour of pump Z9 is red.", "edit_set": edit_set}
    body |= {"kind": "verbatim", "title": "Colour"} if route.endswith("/recall") else {}
    writer = {"authorization": "Bearer k-acme-2"}
    edit = (await client.post("/v1/edits", json=body, params={"wait": "active"}, headers=writer)).json()["id"]
    if route != "DELETE /v1/edit_sets/{edit_set}":  # one with a label stays
        await client.put(f"/v1/edit_sets/{edit_set}/labels/staging", json={"to": "0"})
    key = (await client.post("/v1/api_keys", json={"name": name, "scopes": ["chat"]})).json()["id"]
    if route.endswith("/restore"):
        await client.post(f"/v1/edits/{edit}/retire")
    if route.endswith("/enable"):
        await client.post(f"/v1/edits/{edit}/disable")
        await client.post(f"/v1/edit_sets/{edit_set}/disable")
    file, other = [(await client.post("/v1/files", **UPLOAD)).json()["id"] for _ in range(2)]
    body = {"input_file_id": other, "endpoint": "/v1/edits", "edit_set": edit_set}
    batch = (await client.post("/v1/batches", json=body)).json()["id"]
    return {"edit_set": edit_set, "edit_id": edit, "label": "staging", "file_id": file, "batch_id": batch} | {
        "key_id": key,
        "name": "acme",
    }


def filled(body: dict[str, Any], objects: dict[str, str]) -> dict[str, Any]:
    """A body, with the objects that it names."""
    return {name: objects.get(str(value).strip("{}"), value) for name, value in body.items()}


async def log_of(client: Any, **headers: str) -> list[dict[str, Any]]:
    answer = await client.get("/v1/audit_events/export", headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/jsonl")
    return [json.loads(line) for line in answer.text.splitlines()]


def event_of(item: dict[str, Any]) -> AuditEvent:
    fields = {name: value for name, value in item.items() if name != "object"}
    return AuditEvent(**{**fields, "changes": tuple(Change(**change) for change in item["changes"])})


async def test_one_event_for_each_route_and_none_for_its_repetition(stack: Any, model: Path) -> None:
    settings = Settings(api_keys=("acme:k-acme", "acme:k-acme-2", "zen:k-zen"), operator_project="acme")
    async with serving(stack, model, settings=settings) as client:
        client.headers.update(KEYS)
        await client.post("/v1/edits", json={"text": "The first edit makes the default set."})
        for number, (route, sent) in enumerate(CALLS.items()):
            method, path = route.split()
            objects = await made(client, f"set-{number}", route)
            path = path.format(**objects)
            sent = sent | {"json": filled(sent["json"], objects)} if "json" in sent else sent
            before = {event["id"] for event in await log_of(client)}
            headers = {"idempotency-key": f"key-{number}", "x-request-id": f"walk-{number}"}
            sent = sent | {"headers": headers | sent.get("headers", {})}
            for _ in range(2):
                answer = await client.request(method, path, **sent)
                assert answer.is_success, (route, answer.text)
            news = [e for e in await log_of(client) if e["id"] not in before and e["actor"] != "server"]
            assert [event["request_id"] for event in news] == [f"walk-{number}"], route
            assert news[0]["actor"].startswith("key_config_"), route
            assert news[0]["changes"], route
            assert all(change["before"] != change["after"] for change in news[0]["changes"]), route
        log = await log_of(client)
        assert first_break(map(event_of, log)) is None
        assert {event["action"] for event in log if event["actor"] == "server"} == {"record_outcomes"}
        page = (await client.get("/v1/audit_events", params={"limit": 3, "after": log[4]["id"]})).json()
        assert (page["data"], page["has_more"]) == (log[3:0:-1], True)
        assert await log_of(client, authorization="Bearer k-zen") == [], "another project's log is not shown"
        unknown = await client.get(
            "/v1/audit_events", params={"after": log[0]["id"]}, headers={"authorization": "Bearer k-zen"}
        )
        assert unknown.status_code == 400
