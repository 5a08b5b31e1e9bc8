"""The reference formula against an independent one: explicit loops over heads and entries."""

import math

import pytest
import torch

from incomes_plugin.selection.reference import select
from incomes_plugin.selection.scale import LogScale


def by_hand(query, zero_key, keys, values, scale):
    out = torch.zeros_like(query)
    group = query.shape[1] // zero_key.shape[0]
    for t in range(query.shape[0]):
        for h in range(query.shape[1]):
            k = h // group
            entries = [zero_key[k], *keys[:, k]]
            logits = [scale * float(query[t, h] @ e) / math.sqrt(query.shape[-1]) for e in entries]
            total = sum(math.exp(x) for x in logits)
            for x, value in zip(logits[1:], values[:, k], strict=True):
                out[t, h] += math.exp(x) / total * value
    return out


@pytest.mark.parametrize("entries", [0, 1, 7])
def test_select_matches_the_formula_written_out(entries: int):
    torch.manual_seed(entries)
    query, zero = torch.randn(3, 4, 8), torch.randn(2, 8)
    keys, values = torch.randn(entries, 2, 8), torch.randn(entries, 2, 8)
    out, weights = select(query, zero, keys, values, 1.7)
    assert torch.allclose(out, by_hand(query, zero, keys, values, 1.7), atol=1e-5)
    assert torch.allclose(weights.sum(-1), torch.ones(3, 4))
    assert weights.shape == (3, 4, entries + 1)


def test_empty_pool_adds_exactly_nothing():
    out, _ = select(torch.randn(5, 4, 8), torch.randn(2, 8), torch.empty(0, 2, 8), torch.empty(0, 2, 8), 1.0)
    assert torch.equal(out, torch.zeros(5, 4, 8))


def test_order_of_entries_does_not_matter():
    torch.manual_seed(0)
    query, zero, keys, values = torch.randn(3, 4, 8), torch.randn(2, 8), torch.randn(9, 2, 8), torch.randn(9, 2, 8)
    order = torch.randperm(9)
    one, _ = select(query, zero, keys, values, 2.0)
    other, _ = select(query, zero, keys[order], values[order], 2.0)
    assert torch.allclose(one, other, atol=1e-6)


def test_log_scale_keeps_a_fixed_gap_above_any_number_of_distractors():
    """With gap g over n equal distractors the weight of the right entry must not vanish as n grows."""
    scale = LogScale(base=0.0, slope=1.0)
    weights = [1 / (1 + n * math.exp(-1.2 * scale(n))) for n in (10, 1_000, 100_000)]
    assert weights == sorted(weights)
