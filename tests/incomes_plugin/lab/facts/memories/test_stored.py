"""MLP and attention memories against their float64 definitions, and what each is for."""

import pytest
import torch

from incomes_plugin.errors import InvalidValue
from incomes_plugin.lab.facts.memories import (
    AttentionMemory,
    LinearMemory,
    MLPMemory,
    decide,
    reference,
    rules,
    unit_codes,
)
from incomes_plugin.lab.facts.theory import logit_scale
from tests.incomes_plugin.lab.facts.memories.test_linear import names, on_sphere, right


def test_mlp_equals_its_definition():
    memory = MLPMemory(on_sphere(12, 6), on_sphere(12, 5, 1))
    queries = on_sphere(4, 6, 2)
    expected = torch.stack([reference.mlp(memory.inner, memory.outer, query) for query in queries])
    torch.testing.assert_close(memory(queries).double(), expected, rtol=1e-5, atol=1e-6)


def test_shared_answers_need_an_mlp():
    """Theorem 2 needs no injective answers; a linear memory of as many facts with 32 answers fails."""
    keys, codes = on_sphere(300, 16), on_sphere(32, 16, 1)
    answers = torch.randint(32, (300,), generator=torch.Generator().manual_seed(2))
    memory = MLPMemory.fit(keys, codes, answers, 32, steps=600)
    linear = LinearMemory(rules.trained(keys, codes, answers, steps=100))
    assert float((decide(memory(keys), codes).best == answers).float().mean()) > 0.99
    assert float((decide(linear(keys), codes).best == answers).float().mean()) < 0.5


def test_attention_equals_its_definition():
    memory = AttentionMemory(8, 5, 3.0)
    memory.insert(names(20), on_sphere(20, 8), on_sphere(20, 5, 1))
    for query, found in zip(on_sphere(4, 8, 2), memory(on_sphere(4, 8, 2)), strict=True):
        expected = reference.attention(memory.keys, memory.values, query, 3.0)
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


def test_attention_recalls_all_at_the_scale_of_theory_and_not_far_below():
    keys, codes = on_sphere(1000, 128), unit_codes(names(1000), 128)
    memory = AttentionMemory(128, 128, logit_scale(1000, 128))
    memory.insert(names(1000), keys, codes)
    assert right(memory, keys, codes) == 1.0
    own = (memory(keys) * codes).sum(-1)
    assert float(own.min()) > 0.98
    memory.scale /= 4
    assert float((memory(keys) * codes).sum(-1).min()) < 0.5


def test_attention_forgets_what_is_deleted():
    memory = AttentionMemory(32, 32, 40.0)
    assert not memory(on_sphere(2, 32)).any()
    keys, codes = on_sphere(6, 32), unit_codes(names(6), 32)
    memory.insert(names(6), keys, codes)
    memory.delete(["edit-1", "edit-4"])
    assert memory.ids == ["edit-0", "edit-2", "edit-3", "edit-5"]
    assert torch.equal(memory.keys, keys[[0, 2, 3, 5]])
    assert torch.equal(memory.values, codes[[0, 2, 3, 5]])
    with pytest.raises(InvalidValue, match="not in the memory"):
        memory.delete(["edit-1"])
    with pytest.raises(InvalidValue, match="already"):
        memory.insert(["edit-0"], keys[:1], codes[:1])
