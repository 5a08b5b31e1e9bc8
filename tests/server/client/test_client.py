"""Both clients against a real admin app over HTTP: typed answers, typed errors, pages, and writes that happen once."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import unquote

import pytest
from incomes_server.api.admin.schemas import EditObject, EditSetObject, WaitFor
from incomes_server.client import AsyncClient, Client, resources
from incomes_server.client import client as module
from incomes_server.client.sending import wait_before_retry
from incomes_server.edits import EditStatus
from incomes_server.settings import Settings
from starlette.responses import JSONResponse

from incomes_plugin.errors import (
    EditNotFound,
    EditSetExists,
    EtagMismatch,
    EvalRunNotFound,
    IncomesError,
    InvalidApiKey,
    InvalidValue,
    NotEncrypted,
    NotReady,
    RouteNotFound,
    StoredFileNotFound,
    UnknownParameter,
)
from tests.server.local import local_server, over_http
from tests.tiny_model import write_tiny_model

loop = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
async def server(database_url, model):
    async with local_server(database_url, model, Settings(api_keys=("acme:k-acme", "zen:k-zen"))) as running:
        yield running


@pytest.fixture
async def url(server):
    async with over_http(server.app) as url:
        yield url


def use_everything(url, folder):
    """Each method of the synchronous client once."""
    with Client(url, "k-acme") as client:
        made = client.edit_sets.create("support")
        assert (made.name, client.edit_sets.get("support")) == ("support", made)
        edit = client.edits.add("Pump Z9 is red.", edit_set="support", external_id="z9", metadata={"ticket": "KB-17"})
        assert (type(edit), edit.reached, edit.status) == (EditObject, WaitFor.ACTIVE, EditStatus.READY)
        newer = client.edits.replace(edit.id, "Pump Z9 is blue.", version=1)
        assert (newer.version, client.edits.get(edit.id, version=1).text) == (2, "Pump Z9 is red.")
        with pytest.raises(EtagMismatch):
            client.edits.retire(edit.id, version=1)
        lines = [b'{"custom_id": "a", "text": "Fact a."}', b"{", b'{"custom_id": "c", "text": "Fact c."}']
        done = client.edits.import_lines(lines, edit_set="support")
        assert (done.request_counts.completed, done.data[1].error["code"]) == (2, "invalid_value")
        assert [e.text for e in client.edits.list(order="asc")] == ["Pump Z9 is blue.", "Fact a.", "Fact c."]
        assert [e.text for e in client.edits.list(most=1, status="ready")] == ["Fact c."]
        label = client.labels.move("support", "production", "1")
        assert (label.reached, label.num_edits, client.labels.get("support", "production").version) == ("active", 1, 1)
        assert client.labels.move("support", "production", moves=1).previous.version == 1
        with pytest.raises(EtagMismatch):
            client.labels.move("support", "production", "1", moves=1)
        assert [each.name for each in client.labels.list("support").data] == ["production"]
        newest, *older = client.snapshots.list("support")
        assert (newest.labels, client.snapshots.get(newest.id)) == (["production"], newest)
        assert client.snapshots.diff("support", older[-1].id).num_added == 3
        assert client.labels.delete("support", "production").deleted
        assert client.edits.retire(edit.id, version=2).status is EditStatus.RETIRED
        assert [replica.lag for replica in client.replicas.list().data] == [0]
        path = folder / "kb.jsonl"
        path.write_bytes(lines[0])
        file = client.files.upload(path)
        batch = client.batches.create(file.id, edit_set="support", dry_run=True)
        while (batch := client.batches.get(batch.id)).status != "completed":
            time.sleep(0.05)
        assert (batch.request_counts.completed, client.batches.cancel(batch.id)) == (1, batch)
        assert [list(map(type, client.files.content(each))) for each in (file.id, batch.output_file_id)] == [[str]] * 2
        assert [each.id for each in client.batches.list()] == [batch.id]
        assert {each.purpose for each in client.files.list()} == {"edits", "batch_output"}
        assert client.files.delete(file.id).deleted
        with pytest.raises(StoredFileNotFound):
            client.files.get(file.id)
        with pytest.raises(StoredFileNotFound):
            list(client.files.content(file.id))
        exported = [json.loads(line)["text"] for line in client.edits.export(edit_set="support")]
        assert exported == ["Fact a.", "Fact c."]
        assert client.edit_sets.digest("support").num_edits == 2
        checked = client.edits.validate("Pump Z9 is red.", edit_set="support", supersedes=["edit_none"])
        assert (checked.valid, [problem.code for problem in checked.problems]) == (False, ["edit_not_found"])
        with pytest.raises(NotReady, match="no engine"):
            client.edits.preview("Pump Z9 is red.", edit_set="support", questions=["Which colour?"])
        suite = client.edit_sets.set_test_suite("support", [{"question": "Which?", "expected": ["red"]}], required=True)
        assert (client.edit_sets.test_suite("support"), suite.questions[0].question) == (suite, "Which?")
        with pytest.raises(NotReady, match="no engine"):
            client.eval_runs.create("support")
        assert list(client.eval_runs.list("support")) == []
        with pytest.raises(EvalRunNotFound):
            client.eval_runs.get("erun_none")
        assert client.edit_sets.delete("support").deleted
        assert list(client.edit_sets.list()) == []


def use_what_operators_have(url):
    with Client(url, "k-acme") as client:
        assert client.server.disable().disabled
        assert client.server.get().disabled
        assert not client.server.enable().disabled
        assert client.projects.create("umbrella").name == "umbrella"
        assert [each.name for each in client.projects.list()] == ["umbrella"]
        assert client.projects.set_limits("umbrella", max_edits=7).max_edits == 7
        assert client.projects.limits("umbrella").max_edits == 7
        key = client.keys.create("bot", ["edits:read"], project="umbrella")
        assert (key.project, key.scopes, bool(key.secret)) == ("umbrella", ["edits:read"], True)
        newer = client.keys.rotate(key.id, grace_s=0, project="umbrella")
        assert client.keys.revoke(newer.id, project="umbrella").revoked_at is not None
        assert [each.id for each in client.keys.list(project="umbrella")] == [newer.id, key.id]
        for call in (client.projects.data_key, client.projects.rotate_data_key, client.projects.erase_data_key):
            with pytest.raises(NotEncrypted):
                call("umbrella")
        events = list(client.audit.list(order="asc"))
        assert [json.loads(line)["id"] for line in client.audit.export()] == [event.id for event in events]
        assert {"switch_server", "create_project"} <= {event.action for event in events}


@loop
async def test_what_operators_have(database_url, model):
    settings = Settings(api_keys=("acme:k-acme",), operator_project="acme")
    async with local_server(database_url, model, settings) as server, over_http(server.app) as url:
        await asyncio.to_thread(use_what_operators_have, url)


@loop
async def test_the_synchronous_client(url, tmp_path):
    await asyncio.to_thread(use_everything, url, tmp_path)


@loop
async def test_the_asynchronous_client_pages_through_more_than_one_page(url):
    async with AsyncClient(url, "k-acme") as client:
        made = [await client.edit_sets.create(f"set-{i}") for i in range(103)]
        assert type(made[0]) is EditSetObject
        assert [item.id async for item in client.edit_sets.list(order="asc")] == [item.id for item in made]
        assert [item.id async for item in client.edit_sets.list(most=101)] == [i.id for i in made[:1:-1]]
        edit = await client.edits.add("Pump Z9 is red.", wait="ready")
        assert edit.reached is WaitFor.READY
        assert [e.id async for e in client.edits.list(edit_set="default")] == [edit.id]
        assert [json.loads(line)["custom_id"] async for line in client.edits.export()] == [edit.id]


@loop
async def test_errors_have_their_class(url):
    async with AsyncClient(url, "k-acme") as client, AsyncClient(url, "wrong") as stranger:
        edit = await client.edits.add("Pump Z9 is red.")
        await client.edit_sets.create("a")
        for error, param, wrong in (
            (EditNotFound, None, client.edits.get("edit_none")),
            (RouteNotFound, None, client.edits.get("../edit_sets/a")),
            (EditSetExists, "name", client.edit_sets.create("a")),
            (UnknownParameter, "txt", client.edits.add("x", txt="y")),
            (InvalidValue, "text", client.edits.add("")),
            (InvalidApiKey, None, stranger.edits.get(edit.id)),
        ):
            with pytest.raises(error) as raised:
                await wrong
            assert (raised.value.param, f"[{raised.value.code}]" in raised.value.message) == (param, True)
    async with AsyncClient(url, "k-zen") as other:
        with pytest.raises(EditNotFound):
            await other.edits.get(edit.id)


class Unlucky:
    """Carries out what arrives and loses the answer of every first attempt: a connection that breaks, or a 503."""

    def __init__(self, app, how):
        self.app, self.how, self.keys = app, how, []

    async def __call__(self, scope, receive, send):
        key = dict(scope["headers"]).get(b"idempotency-key")
        self.keys.append(key)
        if len(self.keys) % 2 == 0:
            return await self.app(scope, receive, send)

        async def lost(_message):
            return None

        await self.app(scope, receive, lost)
        if self.how == "503":
            await JSONResponse({"error": {"message": "busy", "code": "not_ready"}}, 503)(scope, receive, send)
        else:
            await send({"type": "http.response.start", "status": 202, "headers": [(b"content-length", b"9")]})
            raise ConnectionResetError


@loop
@pytest.mark.parametrize("how", ["503", "broken"])
async def test_a_write_whose_answer_is_lost_happens_once(server, how):
    unlucky = Unlucky(server.app, how)
    async with over_http(unlucky) as url, AsyncClient(url, "k-acme") as client:
        edit = await client.edits.add("Pump Z9 is red.")
        newer = await client.edits.replace(edit.id, "Pump Z9 is blue.")
        assert newer.version == 2
        assert [e.id async for e in client.edits.list()] == [edit.id]
    first, second, third = (unlucky.keys[i : i + 2] for i in (0, 2, 4))
    assert first[0] == first[1] != second[0] == second[1] is not None
    assert third == [None, None]


@loop
async def test_the_last_failure_is_told(server):
    attempts = []

    async def down(scope, receive, send):
        attempts.append(scope["path"])
        error = {"message": "down", "code": "engine_lost", "param": None}
        await JSONResponse({"error": error}, 503, {"x-request-id": "req_1"})(scope, receive, send)

    async with over_http(down) as url, AsyncClient(url, retries=1) as client:
        with pytest.raises(IncomesError, match=r"down \[engine_lost, request req_1\]"):
            await client.replicas.list()
        assert len(attempts) == 2
    with pytest.raises(NotReady, match="incomes serve"):
        await AsyncClient("http://127.0.0.1:9", retries=0).replicas.list()


@pytest.mark.parametrize("url", ["http://x:port", "http://[::1"])
def test_an_address_that_is_none(url):
    for kind in (Client, AsyncClient):
        with pytest.raises(InvalidValue, match="--url"):
            kind(url)


def test_waits_grow_and_end():
    error = module.httpx.ConnectError("refused")
    waits = [wait_before_retry(error, attempt, 9) for attempt in range(9)]
    assert all(0.18 < waits[i] <= min(0.25 * 2**i, 8) for i in range(9))
    assert wait_before_retry(error, 9, 9) is None
    for status, retried in ((200, False), (404, False), (412, False), (422, False), (429, True), (503, True)):
        response = module.httpx.Response(status, headers={"retry-after": "3"})
        assert wait_before_retry(response, 0, 2) == (3.0 if retried else None)


def methods_of(group):
    """Its functions that make calls, by name."""
    return {name: value.make for kind in group.__mro__ for name, value in vars(kind).items() if hasattr(value, "make")}


def routes_of_the_client():
    """Method and path of each call, `{}` for what is named in the path."""
    for group in resources.Group.__subclasses__():
        for make in methods_of(group).values():
            needed = [p for p in inspect.signature(make).parameters.values() if p.default is p.empty]
            given = {
                p.name: [] if "Sequence" in str(p.annotation) else "{}" for p in needed if p.kind is not p.VAR_KEYWORD
            }
            call = make(**given)
            call = getattr(call, "first", call)
            yield f"{getattr(call, 'method', 'GET')} {unquote(call.path)}"


def test_every_route_of_the_admin_api_has_a_method():
    paths = json.loads((Path(__file__).parents[3] / "docs/openapi.json").read_text())["paths"]
    served = {
        f"{method.upper()} {re.sub('{.*?}', '{}', path)}" for path, methods in paths.items() for method in methods
    }
    assert served - {"GET /metrics"} == set(routes_of_the_client())


def test_both_clients_have_the_same_methods():
    groups = resources.Group.__subclasses__()
    assert {"Edits", "EditSets", "Files", "Batches", "Replicas"} <= {group.__name__ for group in groups}
    for sync, later in ((group, vars(resources)["Async" + group.__name__]) for group in groups):
        assert methods_of(sync)
        assert methods_of(sync) == methods_of(later)
    held = [
        {type(value).__name__.removeprefix("Async") for value in vars(kind("http://x")).values()}
        for kind in (Client, AsyncClient)
    ]
    assert held[0] >= {group.__name__ for group in groups} <= held[1]
    public = [
        {name for name, _ in inspect.getmembers(kind, inspect.isfunction) if name[0] != "_"}
        for kind in (Client, AsyncClient)
    ]
    assert public[0] == public[1]


def test_the_client_is_light():
    """Neither the engine nor the server's machinery is imported by who only calls the API."""
    code = (
        "import sys, incomes_server.client\n"
        "heavy = ('torch', 'vllm', 'ray', 'transformers', 'sqlalchemy', 'fastapi', 'starlette', 'numpy')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
