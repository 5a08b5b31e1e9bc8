"""Edit sets in one batch do not see each other; what cannot be read as pinned is an error, never another answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from incomes_plugin.errors import InvalidRequest, PoolFull, SelectionFailed, SnapshotNotFound, SnapshotRetired
from incomes_plugin.gist import Gist, dump_gists
from incomes_plugin.model.hf import EditableModel
from incomes_plugin.pool.snapshot import EMPTY_DIGEST, SnapshotRef
from tests.incomes_plugin.vllm.lab import Job, Lab, RemoteEngine, edited
from tests.incomes_plugin.vllm.test_reference import FP32, TEXTS, chat, prompt, worst_difference

pytestmark = pytest.mark.vllm

FIRST = dict(list(TEXTS.items())[:5])
SECOND = dict(list(TEXTS.items())[5:])


@pytest.fixture(scope="module")
def first(fp32: RemoteEngine) -> dict[str, bytes]:
    return fp32.capture(FIRST)


@pytest.fixture(scope="module")
def second(fp32: RemoteEngine) -> dict[str, bytes]:
    return fp32.capture(SECOND)


def test_two_edit_sets_in_one_batch(
    fp32: RemoteEngine, first: dict[str, bytes], second: dict[str, bytes], reference: EditableModel
) -> None:
    a, b = fp32.commit("eset_iso_a", None, first), fp32.commit("eset_iso_b", None, second)
    pools = {a: reference.pool(fp32.gists(first)), b: reference.pool(fp32.gists(second)), None: None}
    scopes = [a, None, b, a, None, b, b, None]
    jobs = [Job(chat(reference.adapter, i, 15 + i), scope, max_tokens=10) for i, scope in enumerate(scopes)]
    for job, answer in zip(jobs, fp32.run(jobs), strict=True):
        assert worst_difference(reference, pools[job.snapshot], job.ids, answer) < FP32


def test_a_retired_edit_is_gone_and_the_answer_back(fp32: RemoteEngine, first: dict[str, bytes]) -> None:
    base = fp32.commit("eset_back", None, first)
    ids = prompt(8, 40)
    (before,) = fp32.run([Job(ids, base, salt="1")])  # salts: cached prompts are computed in other batches
    more = fp32.commit("eset_back", base, fp32.capture({"new": list(ids)}))
    (during,) = fp32.run([Job(ids, more, salt="2")])
    back = fp32.commit("eset_back", more, {}, removed=["new"])
    (after,) = fp32.run([Job(ids, back, salt="3")])
    assert during.logprobs != before.logprobs
    assert after.logprobs == before.logprobs
    empty = fp32.commit("eset_back", back, {}, removed=list(FIRST))
    (nothing, plain) = fp32.run([Job(ids, empty, salt="4"), Job(ids, salt="5")])
    assert nothing.logprobs == plain.logprobs


def test_a_snapshot_that_is_retired_while_requests_run(
    tight: RemoteEngine, second: dict[str, bytes], reference: EditableModel
) -> None:
    """All have started then, and some are preempted later: they read what they were pinned to."""
    before, used = tight.call("preemptions"), tight.used_bytes()
    snapshot = tight.commit("eset_leaving", None, second)
    jobs = [Job(prompt(50 + i, 70 + i), snapshot, max_tokens=90) for i in range(7)]
    answers = tight.call("run_and_retire", jobs)
    assert tight.call("preemptions") > before
    pool = reference.pool(tight.gists(second))
    for job, answer in zip(jobs, answers, strict=True):
        assert worst_difference(reference, pool, job.ids, answer) < FP32
    tight.run([Job(prompt(1, 3))])  # the runner drops finished requests with its next step
    assert tight.used_bytes() == used


def test_a_full_pool_refuses_and_keeps_serving(fp32: RemoteEngine, first: dict[str, bytes]) -> None:
    base = fp32.commit("eset_full", None, first)
    ids = prompt(9, 30)
    (before,) = fp32.run([Job(ids, base, salt="1")])
    (gist,) = fp32.gists(fp32.capture({"filler": list(range(20, 220))}))
    many = [Gist(f"many_{i}", 1, gist.features, gist.latents) for i in range(300)]
    used = fp32.used_bytes()
    with pytest.raises(PoolFull, match="pool_bytes"):
        fp32.commit("eset_full", base, {g.edit_id: dump_gists([g], fp32.fingerprint) for g in many})
    assert fp32.used_bytes() == used
    (after,) = fp32.run([Job(ids, base, salt="2")])
    assert after.logprobs == before.logprobs


def test_snapshots_that_cannot_be_pinned(fp32: RemoteEngine, first: dict[str, bytes]) -> None:
    one = fp32.commit("eset_pin", None, first)
    two = fp32.commit("eset_pin", one, fp32.capture({"x": [50, 51]}))
    fp32.commit("eset_pin", two, fp32.capture({"y": [52, 53]}))
    ids = prompt(1, 10)
    with pytest.raises(SnapshotRetired):
        fp32.run([Job(ids, one)])
    with pytest.raises(SnapshotNotFound):
        fp32.run([Job(ids, SnapshotRef("eset_pin", 9, "ab" * 32, 3))])
    with pytest.raises(SelectionFailed, match="without an edit scope"):
        fp32.call("run_unscoped_request", ids)


def test_a_snapshot_lost_behind_the_servers_back_fails_the_request(fp32: RemoteEngine, first: dict[str, bytes]) -> None:
    lost = fp32.commit("eset_lost", None, first)
    fp32.call("rpc", "incomes_retire", [lost.id])
    with pytest.raises(SelectionFailed, match=lost.id):
        fp32.run([Job(prompt(2, 10), lost)])
    assert fp32.run([Job(prompt(2, 10))])[0].finish == "length"  # the engine lives


def test_a_worker_without_the_snapshot_fails_the_step(fp32: RemoteEngine) -> None:
    with pytest.raises(SelectionFailed, match="snap_unknown"):
        fp32.call("worker_add_request", "snap_unknown")


def test_a_failing_layer_fails_the_request(lab: Lab, model_dir: Path, first: dict[str, bytes]) -> None:
    broken = lab.engine("broken", model_dir, {**edited(model_dir / "adapter"), "dtype": "float32"})
    snapshot = broken.commit("eset_broken", None, first)
    broken.call("break_a_layer")
    assert broken.run([Job(prompt(2, 10))])[0].finish == "length"  # rows without edits never enter the layer
    with pytest.raises(RuntimeError, match="numel"):
        broken.run([Job(prompt(2, 10), snapshot)])


def test_smuggled_arguments_are_refused(fp32: RemoteEngine) -> None:
    for key in ("incomes_snapshot", "incomes_capture", "incomes_force", "incomes_read_salt", "incomes_anything"):
        with pytest.raises(InvalidRequest, match="vllm_xargs"):
            fp32.call("run_smuggled", prompt(3, 5), {key: "x"})


def test_an_empty_snapshot_takes_the_stock_path(fp32: RemoteEngine) -> None:
    steps = fp32.call("rpc", "incomes_handshake")["num_steps"]
    empty = SnapshotRef("eset_empty", 0, EMPTY_DIGEST, 0)
    scoped, plain = fp32.run([Job(prompt(4, 90), empty), Job(prompt(4, 90))], together=False)
    assert scoped.tokens == plain.tokens
    assert plain.cached == 64
    assert fp32.call("rpc", "incomes_handshake")["num_steps"] == steps


def test_workers_answer_errors_and_never_raise(fp32: RemoteEngine) -> None:
    for method, *arguments in (
        ("incomes_commit", {}),
        ("incomes_commit", None),
        ("incomes_retire", 5),
        ("incomes_take_captures", [["a"]]),
        ("incomes_take_trace", ["not", "a", "name"], []),
        ("incomes_take_trace", "name", [[0, 0]]),
    ):
        (answer,) = fp32.call("raw_rpc", method, *arguments)
        assert not answer["ok"], method
    (answer,) = fp32.call("raw_rpc", "incomes_take_captures", [["ghost", "edit_x", 1, False, []]])
    (captured,) = answer["captures"]
    assert (captured["blob"], captured["error"]) == (None, "edit_x was not captured")


def test_attribution_names_the_edits(
    fp32: RemoteEngine, first: dict[str, bytes], second: dict[str, bytes], reference: EditableModel
) -> None:
    snapshot, other = fp32.commit("eset_trace", None, first), fp32.commit("eset_trace_b", None, second)
    ids, beside = prompt(6, 50), prompt(7, 9)
    jobs = [Job(beside, other), Job(ids, snapshot, trace="trace-1"), Job(beside, other, trace="trace-2")]
    answers = fp32.run(jobs)
    for job, answer, texts in ((jobs[1], answers[1], first), (jobs[2], answers[2], second)):
        found = fp32.call("take_trace", job.trace).mean
        expected = reference_weights(reference, fp32.gists(texts), [*job.ids, *answer.tokens[:-1]], len(job.ids))
        assert found.none_weight == pytest.approx(1 - sum(expected.values()), abs=1e-4)
        assert {e: w for e, _, w in found.applied} == pytest.approx(
            {e: w for e, w in expected.items() if w >= 0.001}, abs=1e-4
        )
    assert fp32.call("take_trace", "trace-1") is None


def test_a_trace_survives_preemption(tight: RemoteEngine, second: dict[str, bytes], reference: EditableModel) -> None:
    """A resumed request reads its answer's rows again; each counts once."""
    snapshot = tight.commit("eset_trace_tight", None, second)
    before = tight.call("preemptions")
    jobs = [Job(prompt(80 + i, 70 + i), snapshot, trace=f"tight-{i}", max_tokens=50) for i in range(10)]
    answers = tight.run(jobs)
    assert tight.call("preemptions") > before
    for job, answer in zip(jobs, answers, strict=True):
        found = tight.call("take_trace", job.trace).mean
        expected = reference_weights(reference, tight.gists(second), [*job.ids, *answer.tokens[:-1]], len(job.ids))
        assert found.none_weight == pytest.approx(1 - sum(expected.values()), abs=1e-4)


def test_a_trace_belongs_to_its_request(fp32: RemoteEngine, first: dict[str, bytes], second: dict[str, bytes]) -> None:
    one, other = fp32.commit("eset_own_a", None, first), fp32.commit("eset_own_b", None, second)
    fp32.run([Job(prompt(11, 30), one, trace="same"), Job(prompt(12, 30), other, trace="same")])
    found = fp32.call("take_trace", "same").mean
    assert {edit for edit, _, _ in found.applied} <= set(first)


def reference_weights(
    reference: EditableModel, gists: list[Gist], ids: list[int], prompt_tokens: int
) -> dict[str, float]:
    """Weights by edit: mean over reading layers, heads and the rows from the last prompt token on."""
    from incomes_plugin.selection import reading

    seen = []

    def spy(*args):
        found = reading.read(*args)
        seen.append((found.gate[..., None] * found.weights).mean(dim=(0, 1)))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("incomes_plugin.model.hf.read", spy)
        reference.logits(ids, reference.pool(gists), prompt_tokens)
    picked = [gists[row] for row in reference.picks.edits]
    parts = (sum(seen) / len(seen)).split([gist.num_tokens for gist in picked])
    return {gist.edit_id: float(part.sum()) for gist, part in zip(picked, parts, strict=True)}
