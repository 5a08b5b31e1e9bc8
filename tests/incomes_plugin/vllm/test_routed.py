"""Routed selection in vLLM against the float32 reference, and what a token that picks nothing leaves untouched."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.model.hf import EditableModel, ReferencePool
from tests.incomes_plugin.vllm.lab import EDITED, Job, Lab, RemoteEngine
from tests.incomes_plugin.vllm.test_reference import FP32, TEXTS, prompt, worst_difference

pytestmark = pytest.mark.vllm


@pytest.fixture
def one_row_at_a_time(routed: RemoteEngine) -> Iterator[None]:
    former = routed.call("gather_at_most", 1)
    yield
    routed.call("gather_at_most", former)


def pool_of(reference: EditableModel, names: list[str]):
    return ReferencePool.of([reference.capture(TEXTS[name]) for name in names])


def test_gists_and_routes_equal_the_reference(routed: RemoteEngine, routed_reference: EditableModel) -> None:
    adapter = routed_reference.adapter
    for gist in routed.gists(routed.capture(adapter, TEXTS)):
        expected = routed_reference.capture(TEXTS[gist.edit_id])
        assert gist.num_gists == adapter.num_gists(len(TEXTS[gist.edit_id]))
        torch.testing.assert_close(gist.keys, expected.keys, atol=1e-4, rtol=0)
        torch.testing.assert_close(gist.values, expected.values, atol=1e-4, rtol=0)


def test_chunked_prefill_decode_and_preemption(routed: RemoteEngine, routed_reference: EditableModel) -> None:
    adapter, pool = routed_reference.adapter, pool_of(routed_reference, list(TEXTS))
    snapshot = routed.commit("eset_routed", None, routed.capture(adapter, TEXTS))
    jobs = [Job(prompt(seed, 70 + seed), snapshot if seed % 3 else None, max_tokens=50) for seed in range(10)]
    before = routed.call("preemptions")
    answers = routed.run(jobs)
    assert routed.call("preemptions") > before
    moved = 0.0
    for job, answer in zip(jobs, answers, strict=True):
        assert worst_difference(routed_reference, pool if job.snapshot else None, job.ids, answer) < FP32
        if job.snapshot:
            moved = max(moved, worst_difference(routed_reference, None, job.ids, answer))
    assert moved > 0.1  # the edits do something
    assert routed_reference.picks is not None


def test_adding_and_removing_edits_keeps_routes_and_entries_together(
    routed: RemoteEngine, routed_reference: EditableModel
) -> None:
    blobs = routed.capture(routed_reference.adapter, TEXTS)
    names = list(blobs)
    deltas = [(names[:7], []), (names[7:], [1, 4, 0]), ([], [8, 2])]
    members: list[str] = []
    snapshot = None
    for added, removed in deltas:
        gone = [names[i] for i in removed]
        snapshot = routed.commit("eset_change", snapshot, {n: blobs[n] for n in added}, removed=gone)
        members = [n for n in members if n not in gone] + added
        job = Job(prompt(77, 40), snapshot, max_tokens=20)
        (answer,) = routed.run([job])
        assert worst_difference(routed_reference, pool_of(routed_reference, members), job.ids, answer) < FP32


def test_rows_are_read_in_pieces_and_each_from_its_own_snapshot(
    routed: RemoteEngine, routed_reference: EditableModel, one_row_at_a_time: None
) -> None:
    blobs = routed.capture(routed_reference.adapter, TEXTS)
    names = list(blobs)
    parts = {"eset_first": names[:3], "eset_second": names[3:]}
    jobs = {
        name: Job(prompt(seed, 40), routed.commit(name, None, {n: blobs[n] for n in members}), max_tokens=5)
        for seed, (name, members) in enumerate(parts.items(), 50)
    }
    for name, job, answer in zip(jobs, jobs.values(), routed.run(list(jobs.values())), strict=True):
        pool = pool_of(routed_reference, parts[name])
        assert worst_difference(routed_reference, pool, job.ids, answer) < FP32


def test_pieces_are_attributed_like_the_whole(
    routed: RemoteEngine, routed_reference: EditableModel, one_row_at_a_time: None
) -> None:
    check_attribution(routed, routed_reference, "pieces")


def test_attribution_names_what_the_tokens_picked(routed: RemoteEngine, routed_reference: EditableModel) -> None:
    check_attribution(routed, routed_reference, "whole")


def check_attribution(routed: RemoteEngine, routed_reference: EditableModel, name: str) -> None:
    """Weights of a traced answer against the reference's picks."""
    snapshot = routed.commit(f"eset_{name}", None, routed.capture(routed_reference.adapter, TEXTS))
    job = Job(prompt(9, 30), snapshot, trace=f"routed-{name}", max_tokens=6)
    (answer,) = routed.run([job])
    found = routed.call("rpc", "incomes_take_trace", job.trace)
    expected = torch.zeros(len(TEXTS))
    with routed_reference.tracing() as masses:
        routed_reference.logits([*job.ids, *answer.tokens][:-1], pool_of(routed_reference, list(TEXTS)))
    for picks, shares in masses:
        expected.scatter_add_(0, picks.edits[29:].flatten(), shares[29:].flatten())
    expected /= 6 * len(masses)
    weights = {edit: weight for edit, _, weight in found["applied"]}
    for index, name in enumerate(TEXTS):
        if expected[index] >= 0.001:
            assert weights[name] == pytest.approx(float(expected[index]), abs=1e-3)
    assert found["none_weight"] == pytest.approx(1 - float(expected.sum()), abs=1e-3)


def test_what_picks_nothing_is_bit_identical(lab: Lab, routed_dir: Path, tmp_path: Path) -> None:
    """With a zero-gist that always wins, a pool changes no bit of the output."""
    silent = tmp_path / "model"
    silent.mkdir()
    for path in routed_dir.iterdir():
        (silent / path.name).write_bytes(path.read_bytes())
    adapter = EditAdapter.load(silent)
    assert adapter.router is not None
    replace(adapter, router=replace(adapter.router, bias=torch.tensor(1e4))).save(silent)
    engine = lab.engine("silent", silent, {**EDITED, "dtype": "bfloat16"})
    snapshot = engine.commit("eset_silent", None, engine.capture(adapter, TEXTS))
    jobs = [Job(prompt(seed, 5 + 9 * seed), max_tokens=12) for seed in range(12)]
    plain = engine.run(jobs, together=False)
    edited = engine.run([replace(job, snapshot=snapshot) for job in jobs], together=False)
    assert [a.logprobs for a in plain] == [a.logprobs for a in edited]  # exact floats
