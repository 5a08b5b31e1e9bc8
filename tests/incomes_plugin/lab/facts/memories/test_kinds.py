"""Every kind of memory: what is written comes back, later facts come in, and which of them forget."""

import pytest
import torch

from incomes_plugin.lab.facts.memories import decide, unit_codes
from incomes_plugin.lab.facts.memories.kinds import KINDS, Facts
from tests.incomes_plugin.lab.facts.memories.test_linear import names, on_sphere

FORGETFUL = {"MLP", "MLP, shared answers", "linear, trained, shared answers", "linear, trained"}
"""Kinds that go on training on later facts alone, as fine-tuning does."""


def facts(kind, count=60, width=64):
    codes = unit_codes(names(12 if kind.shares else count), width)
    places = torch.arange(count) % len(codes)
    return Facts(on_sphere(count, width), codes, places)


def recall(memory, part):
    return float((decide(memory(part.keys), part.codes).best == part.places).float().mean())


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_what_is_written_comes_back(kind):
    memory = kind.write(facts(kind))
    assert recall(memory, facts(kind)) == 1.0
    assert memory.num_bytes > 0


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_later_facts_come_in(kind):
    every = facts(kind)
    first, later = every.part(slice(40)), every.part(slice(40, None))
    memory = kind.add(kind.write(first), first, later)
    assert recall(memory, later) == 1.0
    if kind.name in FORGETFUL:
        assert recall(memory, first) < 1.0
    else:
        assert recall(memory, first) > 0.95


@pytest.mark.parametrize("kind", [kind for kind in KINDS.values() if kind.name not in FORGETFUL])
def test_order_does_not_matter_where_nothing_is_trained(kind):
    every = facts(kind)
    first, later = every.part(slice(40)), every.part(slice(40, None))
    at_once, in_turn = kind.write(every), kind.add(kind.write(first), first, later)
    torch.testing.assert_close(in_turn(every.keys), at_once(every.keys), rtol=1e-4, atol=1e-4)
