"""EditEngine on AsyncLLM behind vLLM's own app: the façade the server uses, with requests in flight."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import torch

from incomes_plugin.errors import (
    FingerprintMismatch,
    GistFormatError,
    InvalidValue,
    PoolFull,
    SelectionFailed,
    SnapshotNotFound,
    SnapshotRetired,
)
from incomes_plugin.gist import Gist, dump_gists, load_gists
from incomes_plugin.model.hf import EditableModel
from incomes_plugin.pool.snapshot import EMPTY_DIGEST, SnapshotDelta, SnapshotRef, add_to_digest
from incomes_plugin.vllm.canary import run_canary
from incomes_plugin.vllm.engine import CaptureJob, EditEngine
from incomes_plugin.vllm.pin import EditScope, use_scope
from tests.incomes_plugin.vllm.lab import ENVIRONMENT
from tests.incomes_plugin.vllm.test_isolation import reference_weights
from tests.incomes_plugin.vllm.test_reference import prompt

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.filterwarnings("ignore"),  # vLLM's imports and its forgotten resources at shutdown
]
NO_EDITS = EditScope(None, None)
POOL_BYTES = 4 << 20


@pytest.fixture(scope="module")
def environment() -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(ENVIRONMENT)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def launched(environment: None, model_dir: Path) -> AsyncIterator[Any]:
    from incomes_plugin.vllm.config import PluginConfig
    from incomes_plugin.vllm.launcher import launch

    arguments = ["--model", str(model_dir), "--dtype", "float32", "--enforce-eager", "--max-model-len", "512"]
    arguments += ["--block-size", "32", "--distributed-executor-backend", "uni", "--max-num-seqs", "32"]
    arguments += ["--served-model-name", "tiny"]
    async with launch(arguments, PluginConfig(model_dir / "adapter", POOL_BYTES)) as launched:
        yield launched


@pytest.fixture(scope="module")
def engine(launched: Any) -> EditEngine:
    return launched.engine


class EditSetLog:
    """Makes consecutive snapshots of one edit set, as the server would."""

    def __init__(self, engine: EditEngine, name: str) -> None:
        self.engine = engine
        self.head = SnapshotRef(name, 0, EMPTY_DIGEST, 0)
        self.base: str | None = None

    async def change(self, added: dict[str, list[int]], removed: tuple[str, ...] = ()) -> SnapshotRef:
        captured = await self.engine.capture([CaptureJob(e, 1, tuple(ids)) for e, ids in added.items()])
        assert [c.error for c in captured] == [None] * len(added)
        delta = self.delta([c.blob for c in captured if c.blob], list(added), removed)
        await self.engine.commit(delta)
        self.head, self.base = delta.snapshot, delta.snapshot.id
        return self.head

    def delta(self, blobs: list[bytes], added: list[str], removed: tuple[str, ...] = ()) -> SnapshotDelta:
        digest = self.head.digest
        for edit_id in added:
            digest = add_to_digest(digest, edit_id, 1)
        for edit_id in removed:
            digest = add_to_digest(digest, edit_id, 1, sign=-1)
        num_edits = self.head.num_edits + len(added) - len(removed)
        snapshot = SnapshotRef(self.head.edit_set, self.head.version + 1, digest, num_edits)
        return SnapshotDelta(self.base, snapshot, tuple(blobs), tuple((e, 1) for e in removed))


def params(max_tokens: int = 6) -> Any:
    from vllm import SamplingParams

    return SamplingParams(max_tokens=max_tokens, temperature=0, logprobs=3, ignore_eos=True, detokenize=False)


async def answer(engine: EditEngine, ids: tuple[int, ...], scope: EditScope, max_tokens: int = 6) -> list[Any]:
    output = (await engine.generate(ids, params(max_tokens), scope)).outputs[0]
    return [list(output.token_ids), [{t: e.logprob for t, e in step.items()} for step in output.logprobs]]


async def settled(engine: EditEngine, snapshots: int) -> Any:
    for _ in range(200):
        status = await engine.status()
        if status.worker.pool.snapshots == snapshots:
            return status
        await asyncio.sleep(0.05)
    raise AssertionError(f"{status.worker.pool.snapshots} snapshots stay resident, expected {snapshots}")


async def test_the_canary_passes_and_leaves_nothing(engine: EditEngine) -> None:
    report = await run_canary(engine)
    assert report.ok, report.reason
    assert report.max_logprob_diff > 0.01
    status = await settled(engine, 0)
    pool = status.worker.pool
    assert (pool.used_bytes, pool.edits, pool.capacity_bytes) == (0, 0, POOL_BYTES)
    assert status.worker.fingerprint == engine.fingerprint


async def test_capture_reports_each_job(engine: EditEngine) -> None:
    jobs = [CaptureJob("a", 1, (20, 21)), CaptureJob("long", 1, tuple(range(300))), CaptureJob("none", 1, ())]
    good, long, none = await engine.capture([*jobs[:2], jobs[2]])
    assert good.blob is not None
    (gist,) = load_gists(good.blob, engine.fingerprint)
    assert (gist.edit_id, gist.version, gist.num_tokens) == ("a", 1, 2)
    assert long.blob is None
    assert "256" in str(long.error)
    assert none.blob is None


async def test_one_edit_vllm_refuses_does_not_fail_the_others(engine: EditEngine) -> None:
    foreign = 10_000  # no such token id
    good, bad = await engine.capture([CaptureJob("good", 1, (20, 21)), CaptureJob("bad", 1, (20, foreign))])
    assert good.blob is not None
    assert bad.blob is None
    assert "vLLM refuses" in str(bad.error)
    with pytest.raises(InvalidValue, match="maximum model length"):
        await engine.generate(prompt(1, 600), params(), NO_EDITS)


async def test_add_and_retire_while_sixteen_requests_stream(engine: EditEngine) -> None:
    log = EditSetLog(engine, "eset_stream")
    first = await log.change({f"e{i}": [30 + i, 31 + i, 32 + i] for i in range(6)})
    prompts = [prompt(500 + i, 20 + i) for i in range(16)]
    scopes = [EditScope("eset_stream", first) if i % 4 else NO_EDITS for i in range(16)]
    expected = await asyncio.gather(*(answer(engine, p, s, 48) for p, s in zip(prompts, scopes, strict=True)))
    running = [asyncio.create_task(answer(engine, p, s, 48)) for p, s in zip(prompts, scopes, strict=True)]
    await asyncio.sleep(0.05)
    second = await log.change({"new": [60, 61, 62]}, removed=("e0", "e1"))
    third = await log.change({}, removed=("new",))
    assert engine.current("eset_stream") == third
    assert not all(task.done() for task in running)
    assert engine.find("eset_stream", first.id) == first  # pinned by the running requests
    now = await answer(engine, prompts[1], EditScope("eset_stream", third))
    for got, want in zip(await asyncio.gather(*running), expected, strict=True):
        assert got[0] == want[0]
    assert now != expected[1]
    status = await settled(engine, 1)
    assert status.pinned_requests == 0
    for gone in (first, second):
        with pytest.raises(SnapshotRetired):
            engine.find("eset_stream", gone.id)
        with pytest.raises(SnapshotRetired):
            await answer(engine, prompts[0], EditScope("eset_stream", gone))
    await engine.drop("eset_stream")
    assert (await settled(engine, 0)).worker.pool.used_bytes == 0


async def test_an_aborted_stream_lets_its_snapshot_go(engine: EditEngine) -> None:
    log = EditSetLog(engine, "eset_abort")
    first = await log.change({"a": [30, 31]})
    task = asyncio.create_task(answer(engine, prompt(1, 30), EditScope("eset_abort", first), 400))
    await asyncio.sleep(0.1)
    await log.change({"b": [32, 33]})
    task.cancel()
    await settled(engine, 1)
    await engine.drop("eset_abort")
    await settled(engine, 0)


async def test_refused_commits_leave_the_state(engine: EditEngine) -> None:
    log = EditSetLog(engine, "eset_refused")
    first = await log.change({"a": [30, 31, 32, 33]})
    before = await answer(engine, prompt(2, 30), EditScope("eset_refused", first))
    (captured,) = await engine.capture([CaptureJob("b", 1, (40, 41, 42, 43))])
    assert captured.blob is not None
    (gist,) = load_gists(captured.blob, engine.fingerprint)
    foreign = dump_gists([gist], "mf_other")
    stale = SnapshotDelta(None, log.delta([captured.blob], ["b"]).snapshot, (captured.blob,))
    names = [f"m{i}" for i in range(3000)]
    many = [dump_gists([replace(gist, edit_id=n)], engine.fingerprint) for n in names]
    for error, delta in (
        (FingerprintMismatch, log.delta([foreign], ["b"])),
        (GistFormatError, log.delta([captured.blob[:-9]], ["b"])),
        (SnapshotNotFound, stale),
        (SnapshotNotFound, log.delta([], [], removed=("ghost",))),
        (PoolFull, log.delta(many, names)),
    ):
        with pytest.raises(error):
            await engine.commit(delta)
        assert engine.current("eset_refused") == first
    assert await answer(engine, prompt(2, 30), EditScope("eset_refused", first)) == before
    await engine.drop("eset_refused")


async def test_a_snapshot_lost_in_the_workers_is_an_error_not_an_answer(engine: EditEngine) -> None:
    log = EditSetLog(engine, "eset_ghost")
    first = await log.change({"a": [30, 31]})
    await engine._call("incomes_retire", [first.id])
    output = await engine.generate(prompt(3, 10), params(), EditScope("eset_ghost", first))
    assert output.outputs[0].finish_reason == "error"
    assert output.outputs[0].token_ids == []
    assert (await answer(engine, prompt(3, 10), NO_EDITS))[0]
    await engine.drop("eset_ghost")


async def test_http_needs_a_scope_and_gets_what_it_allows(launched: Any, engine: EditEngine) -> None:
    log = EditSetLog(engine, "eset_http")
    first = await log.change({f"e{i}": [30 + 3 * i, 31, 32] for i in range(8)})
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hello there"}], "max_tokens": 6}
    body |= {"temperature": 0, "logprobs": True}
    launched.app.state.server = None  # what `serve` sets; vLLM's error handlers read it
    transport = httpx.ASGITransport(app=launched.app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.post("/v1/chat/completions", json=body)).status_code >= 400
        with use_scope(NO_EDITS):
            plain = (await client.post("/v1/chat/completions", json=body)).json()
            smuggled = await client.post(
                "/v1/chat/completions", json=body | {"vllm_xargs": {"incomes_snapshot": first.id}}
            )
        with use_scope(EditScope("eset_http", first, trace="trace-http")):
            edited = (await client.post("/v1/chat/completions", json=body)).json()
            completion = await client.post(
                "/v1/completions", json={"model": "tiny", "prompt": "hello", "max_tokens": 3, "temperature": 0}
            )
        status = (await client.get("/plugins/incomes/status")).json()
    assert smuggled.status_code >= 400
    assert completion.status_code == 200
    assert plain["choices"][0]["logprobs"] != edited["choices"][0]["logprobs"]
    assert status["ready"] is True
    assert status["model_fingerprint"] == engine.fingerprint
    assert status["pool"]["edits"] == 8
    found = await engine.attribution("trace-http")
    assert {e for e, _, _ in found.applied} <= {f"e{i}" for i in range(8)}
    assert found.none_weight + sum(w for _, _, w in found.applied) == pytest.approx(1, abs=0.01)
    with pytest.raises(SelectionFailed):
        await engine.attribution("trace-http")
    await engine.drop("eset_http")


async def test_a_cancelled_commit_still_moves_registry_and_workers_together(engine: EditEngine) -> None:
    log = EditSetLog(engine, "eset_cancel")
    await log.change({"a": [30, 31]})
    (captured,) = await engine.capture([CaptureJob("b", 1, (40, 41))])
    assert captured.blob is not None
    delta = log.delta([captured.blob], ["b"])
    task = asyncio.create_task(engine.commit(delta))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for _ in range(100):
        await asyncio.sleep(0.02)
        if engine.current("eset_cancel") == delta.snapshot:
            break
    log.head, log.base = delta.snapshot, delta.snapshot.id
    await log.change({"c": [50, 51]})
    await engine.drop("eset_cancel")


def closest_call(logprobs: list[dict[int, float]]) -> float:
    """Smallest distance between the best two tokens of a step."""
    return min(sorted(step.values())[-1] - sorted(step.values())[-2] for step in logprobs)


async def test_both_answers_of_one_request_are_edited(engine: EditEngine) -> None:
    from vllm.sampling_params import RequestOutputKind

    log = EditSetLog(engine, "eset_n")
    first = await log.change({"a": [30, 31, 32]})
    scope, twice = EditScope("eset_n", first, trace="trace-n"), params()
    asked = [prompt(700 + i, 40) for i in range(20)]
    greedy = [await answer(engine, ids, EditScope("eset_n", first)) for ids in asked]
    ids, (expected, _) = max(zip(asked, greedy, strict=True), key=lambda pair: closest_call(pair[1][1]))
    twice.n, twice.temperature = 2, 0.01  # vLLM refuses n > 1 for greedy sampling, and no temperature is lower
    twice.output_kind = RequestOutputKind.FINAL_ONLY  # both answers in one output, whichever ends first
    output = await engine.generate(ids, twice, scope)
    assert [list(o.token_ids) for o in output.outputs] == [expected, expected]
    await engine.attribution("trace-n")
    await engine.drop("eset_n")
    await settled(engine, 0)


@pytest_asyncio.fixture(loop_scope="session")
async def traced(engine: EditEngine) -> AsyncIterator[tuple[SnapshotRef, list[Gist]]]:
    """A snapshot, and its gists."""
    log = EditSetLog(engine, "eset_traced")
    captured = await engine.capture([CaptureJob(f"e{i}", 1, (30 + 3 * i, 31, 32)) for i in range(4)])
    blobs = [c.blob for c in captured if c.blob]
    delta = log.delta(blobs, [f"e{i}" for i in range(4)])
    await engine.commit(delta)
    yield delta.snapshot, [gist for blob in blobs for gist in load_gists(blob, engine.fingerprint)]
    await engine.drop("eset_traced")
    await settled(engine, 0)


def text_params(**fields: Any) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(ignore_eos=True, output_kind=RequestOutputKind.CUMULATIVE, **fields)


async def check_attribution(
    engine: EditEngine, reference: EditableModel, gists: list[Gist], ids: tuple[int, ...], trace: str, outputs: Any
) -> None:
    """Each answer has the mean over the rows that made its tokens, and no other."""
    found = await engine.attributions(trace)
    assert list(found) == [(0, output.index) for output in outputs]
    for output in outputs:
        seen = {edit: weight for edit, _, weight in found[0, output.index].applied}

        def error(tokens: list[int], seen: dict[str, float] = seen) -> float:
            expected = reference_weights(reference, gists, [*ids, *tokens], len(ids))
            return max(abs(expected[edit] - seen.get(edit, 0.0)) for edit in expected)

        tokens = list(output.token_ids)
        assert error(tokens[:-1]) < 2e-5
        assert error(tokens[:-1]) < 0.2 * min(error(tokens[:-2]), error(tokens))  # a row more or less would be seen


@pytest.mark.parametrize("ends", ["stop string", "max_tokens"])
async def test_attribution_ends_where_the_answer_ends(
    engine: EditEngine, traced: Any, reference: EditableModel, ends: str
) -> None:
    snapshot, gists = traced
    scope = EditScope("eset_traced", snapshot, trace="trace-ends")
    for seed in range(800, 840):  # a prompt whose answer has a letter that comes late for the first time
        ids = prompt(seed, 40)
        free = await engine.generate(ids, text_params(max_tokens=40, temperature=0), replace(scope, trace=None))
        head = await engine.generate(ids, text_params(max_tokens=6, temperature=0), replace(scope, trace=None))
        text, start = free.outputs[0].text, len(head.outputs[0].text)
        late = [i for i in range(start, len(text) - 1) if text[i].isalnum() and text.find(text[i]) == i]
        if late:
            break
    at = late[0]
    stops = {"stop": [text[at]]} if ends == "stop string" else {}
    limit = 40 if stops else 12
    output = await engine.generate(ids, text_params(max_tokens=limit, temperature=0, **stops), scope)
    assert output.outputs[0].finish_reason == ("stop" if stops else "length")
    assert 4 < len(output.outputs[0].token_ids) < 40
    await check_attribution(engine, reference, gists, ids, "trace-ends", output.outputs)


async def test_each_of_two_answers_ends_for_itself(engine: EditEngine, traced: Any, reference: EditableModel) -> None:
    from vllm.sampling_params import RequestOutputKind

    snapshot, gists = traced
    ids, scope = prompt(802, 40), EditScope("eset_traced", snapshot, trace="trace-two")
    twice = text_params(max_tokens=30, temperature=1.0, seed=7, n=2, stop=list("aeiou"))
    twice.output_kind = RequestOutputKind.FINAL_ONLY
    output = await engine.generate(ids, twice, scope)
    assert len({len(answer.token_ids) for answer in output.outputs}) == 2
    await check_attribution(engine, reference, gists, ids, "trace-two", output.outputs)


async def test_an_aborted_answer_ends_at_its_abort(engine: EditEngine, traced: Any, reference: EditableModel) -> None:
    from vllm.inputs.engine import tokens_input

    snapshot, gists = traced
    ids, scope = prompt(803, 40), EditScope("eset_traced", snapshot, trace="trace-abort")
    vllm = engine._engine
    with use_scope(scope):
        stream = vllm.generate(tokens_input(list(ids)), text_params(max_tokens=400, temperature=0), "abort-me")
        async for output in stream:
            if len(output.outputs[0].token_ids) >= 5:  # an output may hold several tokens on a busy machine
                await vllm.abort("abort-me")
    assert output.outputs[0].finish_reason == "abort"
    await check_attribution(engine, reference, gists, ids, "trace-abort", output.outputs)
    assert engine._answers.take("trace-abort") == {}


async def test_what_is_never_asked_for_is_let_go(engine: EditEngine, traced: Any) -> None:
    snapshot, _ = traced
    await engine.generate(prompt(804, 20), params(), EditScope("eset_traced", snapshot, trace="trace-left"))
    await engine.drop_trace("trace-left")
    assert "trace-left" not in engine._answers._detokenizers
    with pytest.raises(SelectionFailed):
        await engine.attribution("trace-left")


async def test_a_commit_adds_the_change_not_the_set(engine: EditEngine) -> None:
    log = EditSetLog(engine, "eset_cost")
    await log.change({f"e{i}": [30 + i % 200, 31, 32] for i in range(200)})
    before = (await settled(engine, 1)).worker.pool
    await log.change({"more": [50, 51, 52]})
    after = (await settled(engine, 1)).worker.pool
    assert (before.edits, after.edits) == (200, 201)
    assert after.used_bytes - before.used_bytes == before.used_bytes // 200
    await engine.drop("eset_cost")


def vectors_of(count: int, hidden: int = 64) -> Any:
    return torch.randn(count, hidden, generator=torch.Generator().manual_seed(count))


async def said(engine: EditEngine, vectors: Any, num_tokens: int = 9) -> list[int]:
    return [token async for tokens in engine.recall((1,), vectors, num_tokens) for token in tokens]


async def test_a_recall_comes_token_by_token_and_is_repeatable(engine: EditEngine) -> None:
    first, other = await asyncio.gather(said(engine, vectors_of(2)), said(engine, vectors_of(3)))
    assert len(first) == len(other) == 10
    assert first != other
    assert await said(engine, vectors_of(2)) == first
    with pytest.raises(InvalidValue, match=r"\(2, 63\)"):
        await said(engine, vectors_of(2, 63))
    with pytest.raises(InvalidValue, match="refuses"):
        await said(engine, vectors_of(600))


async def test_an_abandoned_recall_leaves_nothing(engine: EditEngine) -> None:
    stream = engine.recall((1,), vectors_of(2), 200)
    assert await anext(stream)  # a busy loop may hand on several tokens at once
    await stream.aclose()  # type: ignore[attr-defined]
    assert len(await answer(engine, prompt(1, 5), NO_EDITS)) == 2
    assert not engine._engine.output_processor.request_states
    for _ in range(200):
        if not (await engine._call("incomes_drop_vectors", "unknown"))["left"]:
            return
        await answer(engine, prompt(1, 5), NO_EDITS)
    raise AssertionError("the worker keeps the vectors of a recall that was given up")


async def test_a_probe_tells_which_verbatim_edit_leads(engine: EditEngine) -> None:
    jobs = [CaptureJob("clause", 1, prompt(31, 9), kind="verbatim"), CaptureJob("fact", 1, prompt(32, 9))]
    captured = await engine.capture(jobs)
    log = EditSetLog(engine, "eset_verbatim")
    delta = log.delta([captured[0].blob], ["clause"])
    await engine.commit(delta)
    scope = EditScope("eset_verbatim", delta.snapshot, "probe-1", probe=True)
    assert engine.has_verbatim(delta.snapshot)
    probed = await answer(engine, prompt(40, 12), scope, max_tokens=1)
    assert await engine.leads("probe-1") == {0: (("clause", 1),)}
    assert await engine.leads("probe-1") == {}
    assert probed == await answer(engine, prompt(40, 12), NO_EDITS, max_tokens=1)
    log.head, log.base = delta.snapshot, delta.snapshot.id
    facts = log.delta([captured[1].blob], ["fact"], ("clause",))
    await engine.commit(facts)
    assert not engine.has_verbatim(facts.snapshot)
    await answer(engine, prompt(40, 12), EditScope("eset_verbatim", facts.snapshot, "probe-2", probe=True))
    assert await engine.leads("probe-2") == {}
    await engine.drop("eset_verbatim")
    await settled(engine, 0)
    assert not engine.has_verbatim(delta.snapshot)
