"""Edit sets in one batch do not see each other; snapshots do not share prefix-cache blocks."""

from __future__ import annotations

from pathlib import Path

import pytest

from incomes_plugin.errors import InvalidRequest, PoolFull, SelectionFailed, SnapshotNotFound, SnapshotRetired
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.model.hf import EditableModel, ReferencePool
from incomes_plugin.pool.snapshot import EMPTY_DIGEST, SnapshotRef
from tests.incomes_plugin.vllm.lab import EDITED, Job, Lab, RemoteEngine
from tests.incomes_plugin.vllm.test_reference import FP32, TEXTS, prompt, worst_difference

pytestmark = pytest.mark.vllm

FIRST = dict(list(TEXTS.items())[:5])
SECOND = dict(list(TEXTS.items())[5:])


def test_two_edit_sets_in_one_batch(fp32: RemoteEngine, adapter: EditAdapter, reference: EditableModel) -> None:
    a = fp32.commit("eset_iso_a", None, fp32.capture(adapter, FIRST))
    b = fp32.commit("eset_iso_b", None, fp32.capture(adapter, SECOND))
    pools = {
        a: ReferencePool.of([reference.capture(ids) for ids in FIRST.values()]),
        b: ReferencePool.of([reference.capture(ids) for ids in SECOND.values()]),
        None: None,
    }
    jobs = [Job(prompt(i, 15 + i), scope, max_tokens=10) for i, scope in enumerate([a, None, b, a, None, b, b, None])]
    for job, answer in zip(jobs, fp32.run(jobs), strict=True):
        assert worst_difference(reference, pools[job.snapshot], job.ids, answer) < FP32


def test_the_same_prompt_hits_the_cache_only_under_the_same_snapshot(
    fp32: RemoteEngine, adapter: EditAdapter, reference: EditableModel
) -> None:
    a = fp32.commit("eset_cache_a", None, fp32.capture(adapter, FIRST))
    b = fp32.commit("eset_cache_b", None, fp32.capture(adapter, FIRST))  # same content, another tenant
    ids = prompt(77, 200)
    jobs = [Job(ids), Job(ids, a), Job(ids, b), Job(ids, a), Job(ids), Job(ids, a, user_salt="u")]
    answers = fp32.run(jobs, together=False)
    assert [answer.cached for answer in answers] == [0, 0, 0, 192, 192, 0]
    a2 = fp32.commit("eset_cache_a", a, fp32.capture(adapter, {"more": [30, 31, 32]}))
    back = fp32.commit("eset_cache_a", a2, {}, removed=["more"])
    assert back.id == a.id
    first, second = fp32.run([Job(ids, a2), Job(ids, back)], together=False)
    assert (first.cached, second.cached) == (0, 192)
    pool = ReferencePool.of([reference.capture(t) for t in FIRST.values()])
    assert worst_difference(reference, pool, ids, second) < FP32


def test_a_retired_edit_is_gone_and_the_answer_back(fp32: RemoteEngine, adapter: EditAdapter) -> None:
    blobs = fp32.capture(adapter, FIRST)
    base = fp32.commit("eset_back", None, blobs)
    ids = prompt(8, 40)
    (before,) = fp32.run([Job(ids, base)])
    more = fp32.commit("eset_back", base, fp32.capture(adapter, {"new": [40, 41, 42, 43]}))
    (during,) = fp32.run([Job(ids, more)])
    back = fp32.commit("eset_back", more, {}, removed=["new"])
    (after,) = fp32.run([Job(ids, back)])
    assert during.logprobs != before.logprobs
    assert after.logprobs == before.logprobs
    empty = fp32.commit("eset_back", back, {}, removed=list(FIRST))
    (nothing, plain) = fp32.run([Job(ids, empty), Job(ids)])
    assert nothing.logprobs == plain.logprobs


def test_a_full_pool_refuses_and_keeps_serving(fp32: RemoteEngine, adapter: EditAdapter) -> None:
    blob = fp32.capture(adapter, {"filler": list(range(20, 40))})
    base = fp32.commit("eset_full", None, fp32.capture(adapter, FIRST))
    ids = prompt(9, 30)
    (before,) = fp32.run([Job(ids, base)])
    from incomes_plugin.gist import Gist, dump_gists

    (gist,) = fp32.gists(blob)
    many = [Gist(f"many_{i}", 1, gist.keys, gist.values) for i in range(1100)]  # 4 entries each, pool of 4096
    free = fp32.free_gists()
    with pytest.raises(PoolFull, match="pool_gists"):
        fp32.commit("eset_full", base, {g.edit_id: dump_gists([g], fp32.fingerprint) for g in many})
    assert fp32.free_gists() == free
    (after,) = fp32.run([Job(ids, base)])
    assert after.logprobs == before.logprobs


def test_snapshots_that_cannot_be_pinned(fp32: RemoteEngine, adapter: EditAdapter) -> None:
    one = fp32.commit("eset_pin", None, fp32.capture(adapter, FIRST))
    two = fp32.commit("eset_pin", one, fp32.capture(adapter, {"x": [50, 51]}))
    fp32.commit("eset_pin", two, fp32.capture(adapter, {"y": [52, 53]}))
    ids = prompt(1, 10)
    with pytest.raises(SnapshotRetired):
        fp32.run([Job(ids, one)])
    with pytest.raises(SnapshotNotFound):
        fp32.run([Job(ids, SnapshotRef("eset_pin", 9, "ab" * 32, 3))])
    with pytest.raises(SelectionFailed, match="without an edit scope"):
        fp32.call("run_unscoped_request", ids)


def test_a_snapshot_lost_behind_the_servers_back_fails_the_request(fp32: RemoteEngine, adapter: EditAdapter) -> None:
    lost = fp32.commit("eset_lost", None, fp32.capture(adapter, FIRST))
    fp32.call("rpc", "incomes_retire", [lost.id])
    with pytest.raises(SelectionFailed, match=lost.id):
        fp32.run([Job(prompt(2, 10), lost)])
    assert fp32.run([Job(prompt(2, 10))])[0].finish == "length"  # the engine lives


def test_a_worker_without_the_snapshot_fails_the_step(fp32: RemoteEngine) -> None:
    with pytest.raises(SelectionFailed, match="snap_unknown"):
        fp32.call("worker_add_request", "snap_unknown")


def test_a_failing_layer_fails_the_request(lab: Lab, model_dir: Path, adapter: EditAdapter) -> None:
    broken = lab.engine("broken", model_dir, {**EDITED, "dtype": "float32"})
    snapshot = broken.commit("eset_broken", None, broken.capture(adapter, FIRST))
    broken.call("break_a_layer")
    assert broken.run([Job(prompt(2, 10))])[0].finish == "length"  # rows without edits never enter the layer
    with pytest.raises(SelectionFailed, match="not allocated"):
        broken.run([Job(prompt(2, 10), snapshot)])


def test_smuggled_arguments_are_refused(fp32: RemoteEngine) -> None:
    for key in ("incomes_snapshot", "incomes_capture", "incomes_trace", "incomes_anything"):
        with pytest.raises(InvalidRequest, match="vllm_xargs"):
            fp32.call("run_smuggled", prompt(3, 5), {key: "x"})


def test_an_empty_snapshot_takes_the_stock_path(fp32: RemoteEngine) -> None:
    steps = fp32.call("rpc", "incomes_handshake")["num_steps"]
    empty = SnapshotRef("eset_empty", 0, EMPTY_DIGEST, 0)
    scoped, plain = fp32.run([Job(prompt(4, 90), empty), Job(prompt(4, 90))], together=False)
    assert scoped.logprobs == plain.logprobs
    assert plain.cached == 64  # no salt either
    assert fp32.call("rpc", "incomes_handshake")["num_steps"] == steps


def test_attribution_names_the_edits(fp32: RemoteEngine, adapter: EditAdapter, reference: EditableModel) -> None:
    snapshot = fp32.commit("eset_trace", None, fp32.capture(adapter, FIRST))
    other = fp32.commit("eset_trace_b", None, fp32.capture(adapter, SECOND))
    ids = prompt(6, 50)
    answers = fp32.run([Job(prompt(7, 9), other), Job(ids, snapshot, trace="trace-1"), Job(prompt(7, 9), other, "t2")])
    found = fp32.call("rpc", "incomes_take_trace", "trace-1")
    expected = reference_weights(reference, [*ids, *answers[1].tokens[:-1]], len(ids) - 1)
    assert found["none_weight"] == pytest.approx(expected.pop(None), abs=1e-4)
    assert {e: w for e, _, w in found["applied"]} == pytest.approx(expected, abs=1e-4)
    assert found["none_weight"] + sum(w for _, _, w in found["applied"]) == pytest.approx(1, abs=1e-3)
    assert fp32.call("rpc", "incomes_take_trace", "trace-1") == {"ok": True, "found": False}


def reference_weights(reference: EditableModel, ids: list[int], first: int) -> dict[str | None, float]:
    """Selection weights by edit: mean over gist layers, heads and the positions from `first` on."""
    from incomes_plugin.selection import reference as formula

    gists = [reference.capture(t, edit_id=e) for e, t in FIRST.items()]
    seen = []
    select = formula.select

    def spy(*args, **kwargs):
        output, weights = select(*args, **kwargs)
        seen.append(weights[first:].mean(dim=(0, 1)))
        return output, weights

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("incomes_plugin.model.hf.select", spy)
        reference.logits(ids, ReferencePool.of(gists))
    mean = sum(seen) / len(seen)
    weights: dict[str | None, float] = {None: float(mean[0])}
    start = 1
    for gist in gists:
        weights[gist.edit_id] = float(mean[start : start + gist.num_gists].sum())
        start += gist.num_gists
    return weights
