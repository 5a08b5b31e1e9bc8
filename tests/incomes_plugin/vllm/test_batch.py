"""ReadBatch: whatever came, left and moved, it holds what a new batch of the same requests holds."""

from __future__ import annotations

import random

import pytest
import torch

from incomes_plugin.pool.picked import PickedEdit
from incomes_plugin.vllm.batch import PickedTokens, ReadBatch
from incomes_plugin.vllm.runtime import answer_of
from incomes_plugin.vllm.traces import Taken, Traces


def request(seed: int, *, traced: bool = False) -> PickedTokens:
    """One to three picks of one to nine tokens, in 2 layers with 3 kv heads."""
    choose = random.Random(seed)
    numbers = torch.Generator().manual_seed(seed)
    picks = [
        PickedEdit(
            (f"edit_{seed}_{i}", 1),
            torch.randn(2, 3, tokens, 4, generator=numbers).bfloat16(),
            torch.randn(2, 3, tokens, 5, generator=numbers).bfloat16(),
        )
        for i, tokens in enumerate(choose.choices(range(1, 10), k=choose.randint(1, 3)))
    ]
    taken = Taken.nothing_yet(picks, torch.device("cpu")) if traced else None
    return PickedTokens.of(picks, torch.randn(len(picks), generator=numbers), taken)


def test_a_request_lies_in_its_slot() -> None:
    one, two = request(1), request(2)
    batch = ReadBatch(one.picks[0])
    batch.set([one, two])
    assert batch.requests == [one, two]
    assert batch.taken is None
    for slot, held in enumerate(batch.requests):
        tokens = len(held.bias)
        for layer in range(2):
            keys = torch.cat([pick.keys[layer] for pick in held.picks], 1).float()
            values = torch.cat([pick.values[layer] for pick in held.picks], 1).float()
            assert torch.equal(batch.keys[layer][slot, ..., :tokens].transpose(-1, -2), keys)
            assert torch.equal(batch.values[layer][slot, :, :tokens], values)
        assert torch.equal(batch.bias[slot, 0, 0, :tokens], held.bias)
        assert batch.bias[slot, 0, 0, tokens:].isneginf().all()


@pytest.mark.parametrize("seed", range(8))
def test_any_history_ends_like_a_new_batch(seed: int) -> None:
    choose = random.Random(seed)
    known = [request(100 * seed + i, traced=i % 2 == 0) for i in range(12)]
    batch = ReadBatch(known[0].picks[0])
    expected = {id(r): torch.zeros(len(r.bias)) for r in known}
    for _ in range(40):
        wanted = choose.sample(known, choose.randint(1, len(known)))
        batch.set(wanted)
        assert sorted(map(id, batch.requests)) == sorted(map(id, wanted))
        fresh = ReadBatch(known[0].picks[0])
        fresh.set(list(batch.requests))
        for ours, theirs in zip((*batch.keys, *batch.values), (*fresh.keys, *fresh.values), strict=True):
            assert ours.shape == theirs.shape
        assert torch.equal(batch.bias, fresh.bias)
        for slot, held in enumerate(batch.requests):
            tokens = len(held.bias)
            for ours, theirs in zip(batch.keys, fresh.keys, strict=True):
                assert torch.equal(ours[slot, ..., :tokens], theirs[slot, ..., :tokens])
            for ours, theirs in zip(batch.values, fresh.values, strict=True):
                assert torch.equal(ours[slot, :, :tokens], theirs[slot, :, :tokens])
        if batch.taken is not None:
            for slot, held in enumerate(batch.requests):
                weights = torch.rand(len(held.bias))
                batch.taken[slot, : len(held.bias)] += weights
                expected[id(held)] += weights
        assert all(part.isfinite().all() for part in (*batch.keys, *batch.values))
    batch.flush()
    for held in known:
        if held.taken is not None:
            torch.testing.assert_close(held.taken.weights, expected[id(held)])


def test_the_same_requests_cost_nothing() -> None:
    held = [request(1), request(2)]
    batch = ReadBatch(held[0].picks[0])
    batch.set(held)
    views = batch.keys
    batch.set(list(held))
    assert batch.keys is views


def test_a_trace_is_a_mean_over_rows_and_layers_and_belongs_to_its_first_owner() -> None:
    traces, held = Traces(num_layers=2), request(3, traced=True)
    taken = held.taken
    assert taken is not None
    traces.add("t", "snap", (0, 0), Taken.nothing_yet([], torch.device("cpu")))  # replaced: it was preempted
    traces.add("t", "snap", (0, 0), taken)
    traces.add("t", "snap", (0, 1), Taken.nothing_yet([], torch.device("cpu")))  # the second answer picked nothing
    foreign = request(4, traced=True).taken
    assert foreign is not None
    foreign.weights += 1
    foreign.rows = 1
    traces.add("t", "other", (0, 2), foreign)
    taken.rows = 5
    taken.weights += 0.1
    found = traces.take("t")
    assert found is not None
    tokens = {edit: count for edit, count in taken.edits}
    half = {(e, v): w for e, v, w in found.mean.applied}
    assert half == pytest.approx({e: 0.1 * n / 10 / 2 for e, n in tokens.items()})
    assert found.mean.none_weight == pytest.approx(1 - sum(w for *_, w in found.mean.applied))
    assert list(found.answers) == [(0, 0), (0, 1)]
    assert {(e, v): w / 2 for e, v, w in found.answers[0, 0].applied} == pytest.approx(half)
    assert (found.answers[0, 1].applied, found.answers[0, 1].none_weight) == ([], 1.0)
    assert traces.take("t") is None


def test_any_number_of_traces_is_kept() -> None:
    traces = Traces(num_layers=2)
    for i in range(10_000):
        traces.add(str(i), "snap", (0, 0), Taken.nothing_yet([], torch.device("cpu")))
    assert all(traces.take(str(i)) for i in range(10_000))


@pytest.mark.parametrize(("request_id", "answer"), [("chatcmpl-a1-9f", 0), ("0_cmpl-x-0-9f", 0), ("12_chatcmpl-a", 12)])
def test_answer_of(request_id: str, answer: int) -> None:
    assert answer_of(request_id) == answer
