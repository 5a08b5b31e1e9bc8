"""Conflicts over HTTP: what a writer is told, in an answer, in an import and in lists. The engine of these tests takes
edits that begin alike for contradictions."""

import json
from dataclasses import replace

import pytest
from incomes_server.auth.keys import ApiKey
from incomes_server.settings import Settings

from incomes_plugin.gist.edit import Compared, FoundConflict
from tests.server.gists import keys_of, outcome_of
from tests.server.local import local_server
from tests.tiny_model import write_tiny_model

pytestmark = pytest.mark.asyncio(loop_scope="session")

ACTIVE = {"wait": "active", "timeout_s": 60}
KEYS = (ApiKey("acme", "a-key"), ApiKey("zen", "z-key"))


class Engine:
    """Makes gists, and compares them by what their texts begin with: all that it ever made, as an engine that is behind
    and still knows edits that are gone, and other sets."""

    def __init__(self):
        self.first = {}
        self.calls = []
        self.broken = self.stuck = False
        self.position = 0

    async def capture(self, jobs):
        self.first |= {job.edit: job.token_ids[:3] for job in jobs}
        return [outcome_of(*job.edit) for job in jobs]

    async def compare(self, edit_set, new, others):
        self.calls.append((edit_set, len(new), len(others)))
        if self.broken:
            return list(new)
        told, beside = [], keys_of(others)
        for each in new:
            alike = [key for key, first in self.first.items() if key != each.edit and first == self.first[each.edit]]
            found = tuple(FoundConflict(*key, "contradiction", 0.875) for key in alike)
            told.append(replace(each, compared=Compared(self.position, tuple(beside), found)))
            beside.append(each.edit)
        return told

    def commit(self, delta):
        if not self.stuck:
            self.position = delta.snapshot.version


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def engine():
    return Engine()


@pytest.fixture
async def server(database_url, model, engine):
    async with local_server(
        database_url, model, Settings(api_keys=KEYS), make=engine.capture, compare=engine.compare, commit=engine.commit
    ) as running:
        yield running


@pytest.fixture
async def client(server):
    async with server.client("a-key") as client:
        yield client


async def add(client, text, **body):
    return await client.post("/v1/edits", json={"text": text, **body}, params=ACTIVE)


async def test_whoever_waits_is_told(client):
    old = (await add(client, "Z9: 36 months")).json()
    assert (old["conflicts"], old["conflict_check"], old["on_conflict"]) == ([], "done", "flag")
    new = await add(client, "Z9: 24 months")
    assert new.status_code == 201
    assert new.json()["conflicts"] == [{"edit_id": old["id"], "kind": "contradiction", "score": 0.875}]
    await add(client, "K7: red")
    found = (await client.get("/v1/edits", params={"conflict": "true"})).json()["data"]
    assert [edit["id"] for edit in found] == [new.json()["id"], old["id"]]
    assert len((await client.get("/v1/edits", params={"conflict": "false"})).json()["data"]) == 1


async def test_a_refusal_names_the_edit_and_the_way_out(client):
    old = (await add(client, "Z9: 36 months")).json()
    refused = await add(client, "Z9: 24 months", on_conflict="reject", external_id="mine")
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (409, "conflicting_edit", "text")
    assert f"contradicts {old['id']}" in error["message"]
    assert "on_conflict" in error["message"]
    head = (await client.get("/v1/edit_sets/default")).json()
    assert head["num_edits"] == 1
    (listed,) = (await client.get("/v1/edits", params={"status": "conflicted"})).json()["data"]
    assert listed["external_id"] == "mine"
    replaced = await client.post(f"/v1/edits/{listed['id']}", json={"text": "K7: 24 months"}, params=ACTIVE)
    assert (replaced.status_code, replaced.json()["reached"]) == (200, "active"), "said otherwise, it may join"


async def test_superseding_is_one_step(client):
    old = (await add(client, "Z9: 36 months")).json()
    new = (await add(client, "Z9: 24 months", on_conflict="supersede")).json()
    assert (new["supersedes"], new["conflicts"], new["set_version"]) == ([old["id"]], [], old["set_version"] + 1)
    assert (await client.get(f"/v1/edits/{old['id']}")).json()["status"] == "superseded"


async def test_a_set_decides_for_edits_that_do_not(client):
    made = await client.post("/v1/edit_sets", json={"name": "strict", "on_conflict": "reject"})
    assert made.json()["on_conflict"] == "reject"
    await add(client, "Z9: 36 months", edit_set="strict")
    assert (await add(client, "Z9: 24 months", edit_set="strict")).status_code == 409
    kept = await add(client, "Z9: 12 months", edit_set="strict", on_conflict="keep_both")
    assert (kept.status_code, kept.json()["conflict_check"], kept.json()["conflicts"]) == (201, None, [])
    wrong = await client.post("/v1/edit_sets", json={"name": "x", "on_conflict": "ignore"})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "on_conflict")


async def test_lines_of_an_import_are_decided_in_their_order(client):
    lines = [
        {"custom_id": "a", "text": "Z9: 36 months"},
        {"custom_id": "b", "text": "Z9: 24 months", "on_conflict": "reject"},
        {"custom_id": "c", "text": "K7: red"},
        {"custom_id": "d", "text": "K7: blue", "on_conflict": "supersede"},
    ]
    body = "\n".join(json.dumps(line) for line in lines)
    answer = (await client.post("/v1/edits/import", content=body, params=ACTIVE)).json()
    assert [line["status"] for line in answer["data"]] == ["ready", "conflicted", "superseded", "ready"]
    assert answer["data"][1]["error"]["code"] == "conflicting_edit"
    assert answer["request_counts"] == {"total": 4, "completed": 3, "failed": 1}


async def test_an_import_decides_for_lines_that_do_not(client):
    texts = {"Z9: 36 months": None, "Z9: 24 months": None, "Z9: 12 months": "flag"}
    lines = [{"custom_id": text, "text": text, "on_conflict": policy} for text, policy in texts.items()]
    body = "\n".join(json.dumps(line) for line in lines)
    answer = await client.post("/v1/edits/import", content=body, params=ACTIVE | {"on_conflict": "reject"})
    assert [line["status"] for line in answer.json()["data"]] == ["ready", "conflicted", "ready"]
    wrong = await client.post("/v1/edits/import", content=body, params={"on_conflict": "no"})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "on_conflict")


async def test_no_edit_of_another_tenant_or_set_is_a_conflict(client, server):
    async with server.client("z-key") as other:
        await add(other, "Z9: 36 months")
        mine = await add(client, "Z9: 24 months", on_conflict="reject")
        assert (mine.status_code, mine.json()["conflicts"]) == (201, [])
        assert (await add(other, "K7: red")).json()["conflicts"] == []
    await client.post("/v1/edit_sets", json={"name": "second"})
    assert (await add(client, "Z9: 12 months", edit_set="second")).json()["conflicts"] == []


async def test_an_edit_is_compared_with_what_the_engine_does_not_hold_yet(client, engine):
    """An engine that never applies a change: the store names what is missing, and the worker fetches it."""
    engine.stuck = True
    await client.post("/v1/edits", json={"text": "Z9: 36", "effective_from": "2099-01-01T00:00:00Z"})
    await client.post("/v1/edits", json={"text": "K7: red"}, params={"wait": "ready"})
    engine.calls.clear()
    answer = await client.post("/v1/edits", json={"text": "Z9: 24 months"}, params={"wait": "ready", "timeout_s": 60})
    assert len(answer.json()["conflicts"]) == 1
    assert [call[1:] for call in engine.calls] == [(1, 0), (1, 2)]


@pytest.mark.parametrize("policy", ["flag", "reject", "supersede"])
async def test_an_engine_that_cannot_compare_is_no_engine_that_found_nothing(client, engine, policy):
    old = (await add(client, "Z9: 36 months")).json()
    engine.broken = True
    answer = await add(client, "Z9: 24 months", on_conflict=policy)
    if policy == "flag":
        assert (answer.status_code, answer.json()["conflict_check"]) == (201, "unavailable")
    else:
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "conflicting_edit")
        assert "could not be checked" in answer.json()["error"]["message"]
    assert (await client.get(f"/v1/edits/{old['id']}")).json()["status"] == "ready"
