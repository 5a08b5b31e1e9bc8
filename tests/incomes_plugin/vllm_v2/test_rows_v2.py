"""Edits under the V2 model runner: the same as the reference's, and nothing at all without edits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from incomes_plugin.errors import SelectionFailed
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.model.hf import EditableModel, ReferencePool
from incomes_plugin.pool.snapshot import SnapshotRef
from tests.incomes_plugin.vllm.lab import Job, Lab, RemoteEngine, edited
from tests.incomes_plugin.vllm.test_reference import (
    FP32,
    assert_gists_equal,
    assert_picks_equal,
    assert_prompt_logprobs,
    assert_says_edits_on,
    chat,
    prompt,
    worst_difference,
)
from tests.incomes_plugin.vllm_v2.conftest import OPTIONS

pytestmark = pytest.mark.vllm
LONG = 45  # tokens until four prompts of 40 have outgrown the 8 blocks of the KV cache
TEXTS = {f"edit_{i}": list(prompt(900 + i, 6 + i)) for i in range(7)} | {"edit_long": list(prompt(950, 60))}


@pytest.fixture(scope="module")
def blobs(edits: RemoteEngine) -> dict[str, bytes]:
    return edits.capture(TEXTS)


@pytest.fixture(scope="module")
def snapshots(edits: RemoteEngine, blobs: dict[str, bytes]) -> tuple[SnapshotRef, SnapshotRef]:
    """Two snapshots with 5 and 3 edits."""
    names = list(blobs)
    parts = names[:5], names[5:]
    return tuple(edits.commit(f"eset_{i}", None, {n: blobs[n] for n in part}) for i, part in enumerate(parts))


@pytest.fixture(scope="module")
def pools(edits: RemoteEngine, blobs: dict[str, bytes], snapshots, reference: EditableModel):
    gists = edits.gists(blobs)
    return {snapshots[0]: reference.pool(gists[:5]), snapshots[1]: reference.pool(gists[5:]), None: None}


def assert_answers(
    reference: EditableModel, pools: dict[SnapshotRef | None, ReferencePool | None], jobs: list[Job], answers: list
) -> None:
    for job, answer in zip(jobs, answers, strict=True):
        assert len(answer.tokens) == job.max_tokens
        assert worst_difference(reference, pools[job.snapshot], job.ids, answer) < FP32


def test_the_runner_is_the_one_named(stock: RemoteEngine, edits: RemoteEngine) -> None:
    for engine in (stock, edits):
        assert engine.call("runner") == "vllm.v1.worker.cpu.model_runner.CPUModelRunner"


def test_gists_equal_the_reference(edits: RemoteEngine, blobs: dict[str, bytes], reference: EditableModel) -> None:
    for gist in edits.gists(blobs):
        assert_gists_equal(gist, reference.capture(TEXTS[gist.edit_id]))


def test_without_edits_or_picks_bit_identical_to_stock(
    v2_lab: Lab, stock: RemoteEngine, edits: RemoteEngine, silent_dir: Path, blobs: dict[str, bytes]
) -> None:
    jobs = [Job(prompt(5 + i, 4 + 3 * i), max_tokens=6) for i in range(8)] + [Job(prompt(40, 70), max_tokens=6)]
    expected = stock.call("run_stock", jobs)
    assert [a.logprobs for a in edits.run(jobs)] == [a.logprobs for a in expected]
    silent = v2_lab.engine("silent", silent_dir, {**OPTIONS, **edited(silent_dir / "adapter")})
    snapshot = silent.commit("eset_silent", None, silent.capture(TEXTS))
    answers = silent.run([replace(job, snapshot=snapshot) for job in jobs])
    assert [a.logprobs for a in answers] == [a.logprobs for a in expected]


def test_answers_and_picks_equal_the_reference(edits: RemoteEngine, snapshots, pools, reference: EditableModel) -> None:
    ids = [prompt(5, 4), prompt(9, 30), prompt(40, 70), chat(reference.adapter, 77, 20, before=10)]
    for snapshot in snapshots:
        jobs = [Job(i, snapshot, max_tokens=6) for i in ids]
        for job in jobs:
            edits.call("watch_picks")
            assert_answers(reference, pools, [job], edits.run([job]))
            assert_picks_equal(edits.call("watched_picks"), reference, pools[snapshot])
        assert_answers(reference, pools, jobs, edits.run(jobs))


def test_mixed_batch_keeps_requests_apart(edits: RemoteEngine, snapshots, pools, reference: EditableModel) -> None:
    a, b = snapshots
    jobs = [Job(prompt(5, 20), scope, max_tokens=6) for scope in (a, None, b, a, None, b, a, None)]
    answers = edits.run(jobs)
    assert_answers(reference, pools, jobs, answers)
    rounded = {tuple(round(value, 2) for value in answer.logprobs[0].values()) for answer in answers}
    assert len(rounded) == 3


def test_preempted_requests_keep_their_edits(edits: RemoteEngine, snapshots, pools, reference: EditableModel) -> None:
    a, b = snapshots
    firsts = zip((11, 23, 57, 91), (a, b, None, a), strict=True)
    jobs = [Job(prompt(first, 40), scope, max_tokens=LONG) for first, scope in firsts]
    before = edits.call("preemptions")
    answers = edits.run(jobs)
    assert edits.call("preemptions") > before
    assert_answers(reference, pools, jobs, answers)


def test_rows_beside_edited_rows_do_not_change_by_a_bit(edits: RemoteEngine, snapshots) -> None:
    plain = [Job(prompt(300 + i, 10), max_tokens=6) for i in range(6)]
    mixed = [replace(job, snapshot=snapshots[0] if i % 2 else None) for i, job in enumerate(plain)]
    for i, (alone, beside) in enumerate(zip(edits.run(plain), edits.run(mixed), strict=True)):
        assert (alone.logprobs == beside.logprobs) == (i % 2 == 0)


def test_prompt_logprobs_are_those_of_the_base(edits: RemoteEngine, snapshots, pools, reference: EditableModel) -> None:
    scopes = zip((7, 30, 60, 7), (snapshots[0], None, snapshots[1], None), strict=True)
    jobs = [Job(prompt(200 + i, length), scope, prompt_logprobs=3) for i, (length, scope) in enumerate(scopes)]
    assert_prompt_logprobs(reference, pools, jobs, edits.run(jobs))


def test_what_was_said_last_decides_what_is_copied(
    v2_lab: Lab, model_dir: Path, parrot_dir: Path, reference: EditableModel
) -> None:
    parrot = v2_lab.engine("parrot", model_dir, {**OPTIONS, **edited(parrot_dir)})
    copies = EditableModel(reference.model, EditAdapter.load(parrot_dir), reference.spell)
    blobs = parrot.capture({f"edit_{i}": list(prompt(70 + i, 30)) for i in range(5)})
    snapshot, pool = parrot.commit("eset_parrot", None, blobs), copies.pool(parrot.gists(blobs))
    scopes, before = {snapshot: pool, None: None}, parrot.call("preemptions")
    jobs = [Job(prompt(60 + i, 40), None if i == 2 else snapshot, max_tokens=LONG) for i in range(4)]
    answers = parrot.run(jobs)
    assert parrot.call("preemptions") > before
    assert_answers(copies, scopes, jobs, answers)
    for job, answer in zip(jobs, answers, strict=True):
        if job.snapshot:
            assert_says_edits_on(answer.tokens, pool.gists)


def test_logits_that_nothing_was_copied_into_end_the_engine(v2_lab: Lab, model_dir: Path) -> None:
    bypassed = v2_lab.engine("bypassed", model_dir, {**OPTIONS, **edited(model_dir / "adapter")})
    snapshot = bypassed.commit("eset_bypassed", None, bypassed.capture(TEXTS))
    bypassed.call("break_copying", "bypassed")
    with pytest.raises(SelectionFailed, match="nothing copied"):
        bypassed.run([Job(prompt(4, 30), snapshot)])


def test_a_snapshot_retired_while_requests_run_still_serves(
    edits: RemoteEngine, blobs: dict[str, bytes], reference: EditableModel
) -> None:
    before, used = edits.call("preemptions"), edits.used_bytes()
    snapshot = edits.commit("eset_leaving", None, blobs)
    jobs = [Job(prompt(first, 40), snapshot, max_tokens=LONG) for first in (12, 24, 58, 92)]
    answers = edits.call("run_and_retire", jobs)
    assert edits.call("preemptions") > before
    assert_answers(reference, {snapshot: reference.pool(edits.gists(blobs))}, jobs, answers)
    edits.run([Job((1, 3), max_tokens=1)])  # the runner drops finished requests with its next step
    assert edits.used_bytes() == used


def test_prompts_hit_and_answers_do_not(edits: RemoteEngine, snapshots, pools, reference: EditableModel) -> None:
    a, b = snapshots
    jobs = [Job(prompt(31, 64), scope) for scope in (None, a, b, a)]
    answers = edits.run(jobs, together=False)
    assert [answer.cached for answer in answers] == [0, 32, 32, 32]
    assert_answers(reference, pools, jobs, answers)
    turn = [Job((*jobs[1].ids, *answers[1].tokens, *prompt(32, 30)), scope) for scope in (a, None)]
    turns = edits.run(turn, together=False)
    assert turns[0].cached == 64  # the stock request has computed the second block as vLLM does
    assert_answers(reference, pools, turn, turns)


def test_the_canary_passes(edits: RemoteEngine) -> None:
    assert edits.call("canary") == (True, "")


def test_plan_follows_every_row_of_tagged_requests(edits: RemoteEngine, snapshots) -> None:
    a, b = snapshots
    edits.call("watch")
    lengths = {a: 40, None: 70, b: 41}
    edits.run([Job(prompt(11 + n, n), scope, max_tokens=LONG) for scope, n in lengths.items()])
    events = edits.call("watched")
    assert [kind for kind, _ in events] == ["begin", "end"] * (len(events) // 2)
    rows: dict[str, list[int]] = {}
    for spans, positions in (value for kind, value in events if kind == "begin"):
        assert len({index for _, index, *_ in spans}) == len(spans)
        for name, _, first_row, num_rows, first_position in spans:
            laid_out = positions[first_row : first_row + num_rows]
            assert laid_out == list(range(first_position, first_position + num_rows))
            rows.setdefault(name, []).extend(laid_out)
    assert sorted(max(seen) for seen in rows.values()) == [40 + LONG - 2, 41 + LONG - 2]


def test_dummy_runs_see_no_plan(edits: RemoteEngine, snapshots) -> None:
    edits.run([Job(prompt(11, 10), snapshots[0], max_tokens=2)])
    edits.call("watched")
    assert not edits.call("dummy_run")
    assert edits.call("watched") == []


@pytest.mark.parametrize(
    ("mode", "batch", "stock", "with_edits"),
    [
        ("FULL_AND_PIECEWISE", (3, 3, 1), "FULL", "PIECEWISE"),
        ("FULL_AND_PIECEWISE", (3, 9, None), "PIECEWISE", "PIECEWISE"),
        ("FULL_DECODE_ONLY", (3, 3, 1), "FULL", "NONE"),
        ("FULL", (3, 9, None), "FULL", "NONE"),
        ("PIECEWISE", (3, 3, 1), "PIECEWISE", "PIECEWISE"),
    ],
)
def test_full_graphs_only_without_edits(edits: RemoteEngine, snapshots, mode, batch, stock, with_edits) -> None:
    job = Job((1, 5, 9), max_tokens=4)
    assert edits.call("dispatch", mode, batch, job) == stock
    assert edits.call("dispatch", mode, batch, replace(job, snapshot=snapshots[0])) == with_edits


def test_exchanged_graph_manager_fails_steps_with_edits(edits: RemoteEngine, snapshots) -> None:
    job = Job((1, 5, 9), max_tokens=4)
    assert edits.call("step_with_another_manager", job) == "answered"
    failed = edits.call("step_with_another_manager", replace(job, snapshot=snapshots[0]))
    assert "graph manager was replaced" in failed


def test_every_changed_signature_is_refused(edits: RemoteEngine) -> None:
    hooks = ["add_request", "remove_request", "prepare_inputs", "execute_model", "sample", "dispatch", "run_fullgraph"]
    assert edits.call("refused_touches") == hooks
