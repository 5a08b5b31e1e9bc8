"""Verbatim edits over HTTP: added, listed, imported and exported; what is refused."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio
import torch
from incomes_server.api.admin.asker import StateAsker
from incomes_server.api.admin.trial_schemas import PreviewContent
from incomes_server.api.http.metrics import VERBATIM_MISMATCHES
from incomes_server.boot.vectors import requeue_vectors
from incomes_server.compression.cramming import Cramming
from incomes_server.edits import RecallKeys
from incomes_server.settings import Settings

from incomes_plugin.errors import CompressionFailed, InvalidValue
from incomes_plugin.gist.edit import Captured, CaptureJob
from incomes_plugin.lab.verbatim.decode import greedy
from incomes_plugin.lab.verbatim.frame import RecallFrame
from incomes_plugin.lab.verbatim.frozen import FrozenModel
from incomes_plugin.lab.verbatim.planner import VectorCapacity
from incomes_plugin.lab.verbatim.row import CramSettings
from incomes_plugin.lab.verbatim.serving import Recaller
from tests.server.local import LocalServer, local_server
from tests.tiny_model import write_tiny_model

pytestmark = pytest.mark.asyncio(loop_scope="session")

CLAUSE = "Either party may cancel with thirty days' notice in writing. " * 40
BODY = {"kind": "verbatim", "text": CLAUSE, "title": "Cancellation", "questions": ["How do I cancel?"]}
SETTINGS = Settings(api_keys=("acme:k-acme", "zen:k-zen"))


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalServer]:
    model = write_tiny_model(tmp_path_factory.mktemp("model"))
    file = tmp_path_factory.mktemp("store") / "edits.db"
    async with local_server(f"sqlite:///{file}", model, SETTINGS) as running:
        running.app.state.database = file
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


async def test_a_replacement_stays_what_it_is_unless_it_says_otherwise(server: LocalServer) -> None:
    edit = await created(server)
    async with server.client("k-acme") as client:

        async def replaced(**body: Any) -> tuple[Any, ...]:
            answer = await client.post(
                f"/v1/edits/{edit['id']}", params={"wait": "active"}, json={"text": "new"} | body
            )
            assert answer.status_code == 200, answer.text
            return tuple(answer.json()[name] for name in ("text", "kind", "title", "questions"))

        assert await replaced() == ("new", "verbatim", "Cancellation", ["How do I cancel?"])
        assert await replaced(title="Notice") == ("new", "verbatim", "Notice", ["How do I cancel?"])
        assert await replaced(kind="verbatim", title=None) == ("new", "verbatim", None, ["How do I cancel?"])
        answer = await client.post(f"/v1/edits/{edit['id']}", json={"text": "new", "questions": []})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "title")
        assert await replaced(title="Notice", questions=[]) == ("new", "verbatim", "Notice", [])
        assert (await replaced(kind="fact"))[1] == "fact"
        assert (await replaced())[1] == "fact"
        assert await replaced(kind="verbatim", title="Notice") == ("new", "verbatim", "Notice", [])


async def test_questions_beyond_the_gist_are_refused_by_name(server: LocalServer) -> None:
    async with server.client("k-acme") as client:
        answer = await client.post("/v1/edits", json=BODY | {"questions": ["How do I cancel?" * 12] * 16})
        said = answer.json()["error"]
        assert (answer.status_code, said["code"], said["param"]) == (413, "edit_too_long", "questions")
        assert "tokens" in said["message"]


async def test_validation_counts_what_it_is_found_by(server: LocalServer) -> None:
    async with server.client("k-acme") as client:
        found = (await client.post("/v1/edits/validate", json=BODY)).json()
    assert (found["valid"], found["num_tokens"]) == (True, (await created(server))["num_tokens"])


async def test_it_cannot_be_previewed() -> None:
    for body, former in ((BODY, None), ({"text": "new"}, RecallKeys("Cancellation"))):
        with pytest.raises(InvalidValue, match="validate") as refused:
            PreviewContent.model_validate(body).found_by(former)
        assert refused.value.param == "kind"
    assert PreviewContent.model_validate({"text": "new", "kind": "fact"}).found_by(RecallKeys("Cancellation")) is None
    assert PreviewContent.model_validate({"text": "new", "questions": ["Is it?"]}).found_by() is None


async def test_it_is_compared_as_what_it_is() -> None:
    jobs: list[CaptureJob] = []

    async def capture(given: Sequence[CaptureJob]) -> list[Captured]:
        jobs.extend(given)
        return [Captured(given[0].edit_id, 1, None, "stop here")]

    asker = StateAsker(None, SimpleNamespace(capture=capture), None, None, "m")  # type: ignore[arg-type]
    with pytest.raises(CompressionFailed):
        await asker.conflicts("eset_a", (1, 2), "verbatim")
    assert jobs == [CaptureJob("edit_preview", 1, (1, 2), kind="verbatim")]


async def test_another_tenant_does_not_see_it(server: LocalServer) -> None:
    edit = await created(server)
    async with server.client("k-zen") as client:
        assert (await client.get(f"/v1/edits/{edit['id']}")).status_code == 404


class Engine:
    """Says what the model itself decodes; or, when told so, something else, or nothing for a long time."""

    def __init__(self, model: FrozenModel) -> None:
        self.model, self.wrong, self.slow = model, False, False

    async def say(self, template: Sequence[int], vectors: torch.Tensor, num_tokens: int) -> AsyncIterator[list[int]]:
        if self.slow:
            await asyncio.sleep(3600)
        said = greedy(self.model, vectors, num_tokens + 1)
        yield [said[0] + 1, *said[1:]] if self.wrong else said


@pytest.fixture(scope="module")
def engine(server: LocalServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The server has it say texts."""
    torch.set_num_threads(1)
    model = FrozenModel(write_tiny_model(tmp_path_factory.mktemp("recall")))
    found = Engine(model)
    recaller = Recaller(lambda: RecallFrame.of(model.folder, model.dtype), found.say)
    server.app.state.context = replace(server.context, recaller=recaller)
    yield found
    server.app.state.context = server.context


async def with_vectors(server: LocalServer, engine: Engine, text: str = "valve 7") -> str:
    """Id of an edit that is verified."""
    edit = await created(server, text=text)
    store = server.context.store
    cramming = Cramming(engine.model, VectorCapacity(30.0), CramSettings(max_steps=300))
    for job in (await store.lease_verbatims("one", (), 100, lease_s=60, origin=cramming.origin)).jobs:
        if job.edit_id == edit["id"]:
            assert cramming.add(job) is None
    while cramming.busy:
        await store.record_verbatims("one", cramming.step())
    async with server.client("k-acme") as client:
        shown = (await client.get(f"/v1/edits/{edit['id']}")).json()["verbatim"]
    assert (shown["state"], shown["reason"], shown["tokens"]) == ("verified", None, len(text))
    assert min(shown["vectors"], shown["bytes"], shown["margin"]) > 0
    return str(edit["id"])


async def recalled(server: LocalServer, edit_id: str, key: str = "k-acme", **params: Any) -> Any:
    async with server.client(key) as client:
        return await client.post(f"/v1/edits/{edit_id}/recall", params=params)


async def state_of(server: LocalServer, edit_id: str) -> tuple[str, str | None]:
    found = await server.context.store.get_verbatim("acme", edit_id, 1)
    return found.state, found.reason


async def test_without_vectors_the_stored_text_is_said_with_the_reason(server: LocalServer, engine: Engine) -> None:
    edit = await created(server)
    answer = await recalled(server, edit["id"])
    assert answer.json() == {
        "id": edit["id"], "object": "edit.recall", "version": 1, "text": CLAUSE, "source": "stored_text",
        "state": "planning", "reason": "waits for a worker that makes vectors",
    }  # fmt: skip
    async with server.client("k-acme") as client:
        (event,) = (await client.get("/v1/audit_events", params={"limit": 1})).json()["data"]
    change = {"target": edit["id"], "before": None, "after": "version 1 recalled from stored_text"}
    assert (event["action"], event["changes"]) == ("note_recall", [change])


async def test_vectors_say_it(server: LocalServer, engine: Engine) -> None:
    answer = (await recalled(server, await with_vectors(server, engine), version=1)).json()
    assert (answer["text"], answer["source"], answer["reason"], answer["state"]) == (
        "valve 7", "vectors", None, "verified",
    )  # fmt: skip


async def test_others_get_404_as_for_a_fact(server: LocalServer, engine: Engine) -> None:
    edit_id = await with_vectors(server, engine)
    assert (await recalled(server, edit_id, "k-zen")).status_code == 404
    async with server.client("k-acme") as client:
        fact = (await client.post("/v1/edits", json={"text": "Pump Z9 is red."})).json()
    for unknown in (fact["id"], "edit_none"):
        assert (await recalled(server, unknown)).status_code == 404
    assert (await recalled(server, edit_id, version=2)).status_code == 404


async def test_one_flipped_bit_gives_the_text_and_new_vectors(server: LocalServer, engine: Engine) -> None:
    edit_id = await with_vectors(server, engine)
    before = VERBATIM_MISMATCHES._value.get()
    with sqlite3.connect(server.app.state.database) as conn:
        (record,) = conn.execute("SELECT record FROM verbatims WHERE edit_id = ?", (edit_id,)).fetchone()
        broken = bytearray(record)
        broken[-1] ^= 1
        conn.execute("UPDATE verbatims SET record = ? WHERE edit_id = ?", (bytes(broken), edit_id))
    conn.close()
    answer = (await recalled(server, edit_id)).json()
    assert (answer["text"], answer["source"], answer["reason"]) == ("valve 7", "stored_text", "verbatim_damaged")
    assert VERBATIM_MISMATCHES._value.get() == before + 1
    state, reason = await state_of(server, edit_id)
    assert (state, str(reason).partition(":")[0]) == ("stale", "verbatim_damaged")
    assert (await recalled(server, edit_id)).json()["source"] == "stored_text"


async def test_an_engine_that_says_something_else_never_gets_through(server: LocalServer, engine: Engine) -> None:
    edit_id = await with_vectors(server, engine)
    engine.wrong = True
    answer = (await recalled(server, edit_id)).json()
    engine.wrong = False
    assert (answer["text"], answer["source"], answer["reason"]) == ("valve 7", "stored_text", "verbatim_mismatch")
    assert (await state_of(server, edit_id))[0] == "stale"


async def test_a_slow_engine_is_not_waited_for(server: LocalServer, engine: Engine) -> None:
    edit_id = await with_vectors(server, engine)
    engine.slow = True
    answer = (await recalled(server, edit_id, timeout_s=0.05)).json()
    engine.slow = False
    assert (answer["text"], answer["source"]) == ("valve 7", "stored_text")
    assert "timeout_s" in answer["reason"]
    assert (await state_of(server, edit_id))[0] == "verified", "nothing is wrong with its vectors"


async def test_vectors_of_another_model_are_stale_at_the_start(server: LocalServer, engine: Engine) -> None:
    edit_id = await with_vectors(server, engine)
    context = server.app.state.context
    assert await requeue_vectors(SETTINGS, context) == 0
    other = FrozenModel(write_tiny_model(engine.model.folder.parent / "other", seed=1))
    recaller = Recaller(lambda: RecallFrame.of(other.folder, other.dtype), engine.say)
    assert await requeue_vectors(SETTINGS, replace(context, recaller=recaller)) >= 1
    assert await state_of(server, edit_id) == ("stale", "its vectors were made with another model")
    assert (await recalled(server, edit_id)).json()["text"] == "valve 7"
