"""The fact memory against its definition, whatever the history of commits; read-back, refusal, routing through it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from incomes_plugin.errors import PoolFull
from incomes_plugin.facts.gate import FactGate, FactMemory, HiddenLayer, Tally
from incomes_plugin.facts.gate.hidden import fit_hidden
from incomes_plugin.facts.gate.load import next_size, unit_room
from incomes_plugin.facts.gate.reference import candidates
from incomes_plugin.selection.routing import Router, Routes, choose

R, UNITS, WINNERS = 6, 8, 3
NEVER = 2.0


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def a_gate(reach: float = -1e9, noise: float = 0.3) -> FactGate:
    question = 3 * torch.eye(R) + noise * numbers(R, R, seed=5)
    return FactGate(HiddenLayer(numbers(UNITS, R, seed=4), question, 0.1 * numbers(R, seed=6), WINNERS), reach, NEVER)


def a_memory(gate: FactGate, capacity: int = 4096) -> FactMemory:
    return FactMemory.empty(gate, capacity, Tally())


def written(gate: FactGate, keys: torch.Tensor, capacity: int = 4096) -> FactMemory:
    return a_memory(gate, capacity).changed(range(len(keys)), keys, [], len(keys))


def found(memory: FactMemory, keys: torch.Tensor, directions: torch.Tensor, zero: torch.Tensor) -> list[set[int]]:
    places = memory.find(directions, zero, keys, len(keys))
    return [set(row.tolist()) - {-1} for row in places]


@settings(max_examples=20, deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(0, 30), st.lists(st.integers(0, 99), max_size=12)), min_size=1, max_size=6),
    capacity=st.sampled_from([4096, 192]),
    reach=st.sampled_from([-1e9, 1.0]),
)
def test_any_history_gives_the_candidates_of_the_definition(steps, capacity, reach):
    """Adds, removals that move the last entries into the holes, full units."""
    gate, keys, fresh = a_gate(reach), torch.empty(0, R), iter(numbers(1000, R, seed=9))
    memory = a_memory(gate, capacity)
    for added, removed in steps:
        gone = {place % len(keys) for place in removed} if len(keys) else set()
        new = torch.stack([next(fresh) for _ in range(added)]) if added else torch.empty(0, R)
        total = len(keys) - len(gone) + added
        holes = sorted(gone)
        places = holes[:added] + list(range(len(keys), len(keys) + added - len(holes)))
        left = [hole for hole in holes[added:] if hole < total]
        tail = [place for place in range(total, len(keys)) if place not in gone]
        moves = list(zip(tail, left, strict=True))
        after = torch.zeros(total, R)
        after[: min(total, len(keys))] = keys[:total]
        for source, target in moves:
            after[target] = keys[source]
        after[places] = new
        try:
            memory = memory.changed(places, new, moves, total)
        except PoolFull:
            assert capacity == 192
            return
        keys = after
        directions, zero = 3 * numbers(5, R, seed=total), torch.zeros(5)
        room = unit_room(capacity, UNITS)
        expected = [candidates(gate, keys, d, 0.0, room) for d in directions]
        if len(keys):
            assert found(memory, keys, directions, zero) == expected
        assert len(memory.units) == total


def test_best_candidates_come_first_and_bfloat16_keys_are_found_too():
    gate, keys = a_gate(), numbers(400, R)
    memory, direction = written(gate, keys), numbers(1, R, seed=2)
    places = memory.find(direction, torch.zeros(1), keys, 16)[0]
    logits = keys[places] @ direction[0]
    assert torch.equal(logits, logits.sort(descending=True).values)
    assert (memory.find(direction, torch.zeros(1), keys.bfloat16(), 16) >= 0).all()


def test_every_fact_that_does_not_read_back_is_searched_by_every_token():
    gate, keys = a_gate(noise=6.0), numbers(200, R)
    memory = written(gate, keys)
    assert 0 < memory.unread < len(keys)
    assert memory.exact.tolist() == (memory.units == -1).nonzero()[:, 0].tolist()
    far = replace(gate, reach=1e9)  # no unit is within reach: only the list is left
    assert found(written(far, keys), keys, numbers(3, R), torch.zeros(3)) == [set(memory.exact.tolist())] * 3


def test_full_units_go_to_the_list_and_too_many_are_refused_with_the_next_size():
    gate = a_gate()
    gate = replace(gate, hidden=replace(gate.hidden, winners=UNITS))  # all of them read back
    keys = gate.hidden.prototypes.repeat_interleave(50, dim=0) + 0.01 * numbers(400, R)
    assert len(written(gate, keys, 400).exact) == 0
    full = written(gate, torch.cat([keys[::5], keys[:50], keys[:50], keys[:15]]), 400)
    assert (full.unread, len(full.exact)) == (0, 25)
    with pytest.raises(PoolFull, match=r"401 entries.*fact_gate_entries=512 \(4,096 bytes\)") as refused:
        full.changed(range(195, 401), numbers(206, R), [], 401)
    assert refused.value.param == "fact_gate_entries"
    crowded = keys[:1].expand(126, R)
    with pytest.raises(PoolFull, match=r"26 entries that do not fit.*the 25 it holds.*fact_gate_entries=512"):
        written(gate, crowded, 400)
    assert len(written(gate, crowded, 512).units) == 126  # the size it names is enough


def test_routing_through_the_memory_equals_routing_through_all_entries_it_names():
    """With every unit read and nothing out of reach nothing is lost: the same picks, weights and prior."""
    gate = a_gate()
    gate = replace(gate, hidden=replace(gate.hidden, winners=UNITS))
    keys, owners = numbers(300, R), torch.arange(300) // 3
    router = Router(torch.eye(R), numbers(R, seed=3), torch.tensor(0.5), torch.tensor(1.0), recency=1.0, growth=0.3)
    routes, memory = Routes(keys, owners, torch.arange(100)), written(gate, keys)
    directions = 2 * numbers(50, R, seed=8)
    whole, few = (choose(router, directions, replace(routes, preselection=m)) for m in (None, memory))
    for name in ("edits", "weights", "none", "bias"):
        torch.testing.assert_close(getattr(few, name), getattr(whole, name))


def test_a_token_out_of_reach_picks_nothing_and_is_counted():
    gate, keys = a_gate(reach=1e9), numbers(300, R)
    router = Router(torch.eye(R), torch.zeros(R), torch.tensor(-50.0), torch.tensor(1.0))
    memory = written(replace(gate, hidden=replace(gate.hidden, question=torch.eye(R), winners=UNITS)), keys)
    picks = choose(router, numbers(7, R), Routes(keys, torch.arange(300), torch.arange(300), memory))
    assert not picks.weights.any()
    assert torch.isfinite(picks.bias).all()
    assert (picks.none == 1).all()
    assert (memory.tally.none, memory.tally.few) == (7, 0)


def test_the_gates_threshold_holds_where_it_is_lower():
    keys = numbers(300, R)
    router = Router(torch.eye(R), torch.zeros(R), torch.tensor(12.0), torch.tensor(1.0), threshold=0.9)
    memory = written(a_gate(), keys)
    strict = replace(memory, gate=replace(memory.gate, threshold=0.5))
    read = [
        choose(router, 2 * numbers(60, R), Routes(keys, torch.arange(300), torch.arange(300), m)).weights.any(dim=1)
        for m in (memory, strict)
    ]
    assert read[1].sum() < read[0].sum()
    assert (read[0] | ~read[1]).all()


def test_the_fit_finds_groups_and_the_question_of_a_key():
    centres, turn = 5 * numbers(4, R), numbers(R, R, seed=7)
    keys = centres.repeat_interleave(50, dim=0) + 0.1 * numbers(200, R)
    hidden = fit_hidden(keys, keys @ turn + 1.0, keys, units=4, winners=2, seed=1)
    torch.testing.assert_close(hidden.expected(keys), keys @ turn + 1.0, atol=0.5, rtol=0.05)
    groups = hidden.nearest(keys).view(4, 50)
    assert (groups == groups[:, :1]).float().mean() > 0.9
    assert (hidden.prototypes - centres[:, None]).norm(dim=-1).min(dim=1).values.median() < 0.2


@pytest.mark.parametrize(("wanted", "size"), [(1, 1), (2, 2), (3, 4), (65_536, 65_536), (65_537, 131_072)])
def test_next_size(wanted, size):
    assert next_size(wanted) == size
