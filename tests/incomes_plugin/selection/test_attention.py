"""Un-rotation against the rotation itself, for every rotary style; weights against the reference."""

from __future__ import annotations

import pytest
import torch

from incomes_plugin.selection.attention import Unrotation, map_heads
from incomes_plugin.selection.attribution import by_edit, selection_weights
from incomes_plugin.selection.reference import select

T, H, K, D = 5, 4, 2, 8


def cos_sin_cache(rotary_dim: int, magnitude: float) -> torch.Tensor:
    angles = torch.arange(64)[:, None] * 10.0 ** -torch.linspace(0, 2, rotary_dim // 2)[None]
    return torch.cat([angles.cos(), angles.sin()], -1) * magnitude


def rotate(heads: torch.Tensor, cache: torch.Tensor, positions: torch.Tensor, neox: bool) -> torch.Tensor:
    """The rotary embedding, written out pair by pair."""
    rotary_dim = cache.shape[1]
    cos, sin = cache[positions][:, None].chunk(2, -1)
    out = heads.clone()
    pairs = (
        (slice(0, rotary_dim // 2), slice(rotary_dim // 2, rotary_dim))
        if neox
        else (slice(0, rotary_dim, 2), slice(1, rotary_dim, 2))
    )
    x, y = heads[..., pairs[0]], heads[..., pairs[1]]
    out[..., pairs[0]], out[..., pairs[1]] = x * cos - y * sin, y * cos + x * sin
    return out


@pytest.mark.parametrize("neox", [True, False])
@pytest.mark.parametrize("rotary_dim", [D, D // 2])
@pytest.mark.parametrize("magnitude", [1.0, 1.3])
@pytest.mark.parametrize("factor", [1.0, 2.5, "rows"])
def test_the_rotation_is_undone(neox: bool, rotary_dim: int, magnitude: float, factor: float | str) -> None:
    heads, positions = torch.randn(T, H, D), torch.tensor([0, 7, 7, 63, 12])
    cache = cos_sin_cache(rotary_dim, magnitude)
    factors = torch.rand(T) + 0.5 if factor == "rows" else factor
    undo = Unrotation.of_rows(cache, positions, factors, head_dim=D, neox=neox, dtype=torch.float32)
    expected = heads * (factors[:, None, None] if isinstance(factors, torch.Tensor) else factors)
    torch.testing.assert_close(undo(rotate(heads, cache, positions, neox)), expected, atol=1e-5, rtol=1e-5)


def test_maps_multiply_from_the_right() -> None:
    heads, maps = torch.randn(T, H, D), torch.randn(H, D, D)
    torch.testing.assert_close(map_heads(heads, maps), torch.einsum("thd,hde->the", heads, maps))
    assert map_heads(heads, None) is heads


def test_weights_equal_the_reference() -> None:
    query, keys, zero = torch.randn(T, H, D), torch.randn(9, K, D), torch.randn(K, D)
    _, weights = select(query, zero, keys, torch.randn(9, K, D), 1.7)
    got = selection_weights(query * 1.7, torch.cat([zero[None], keys]))
    torch.testing.assert_close(got, weights.mean(1).sum(0))


def test_weights_are_summed_by_edit_and_sorted() -> None:
    owners = [None, ("b", 1), ("a", 2), ("b", 1), ("tiny", 1)]
    found = by_edit([0.2, 0.1, 0.3, 0.3995, 0.0005], owners)
    assert found.none_weight == 0.2
    assert [(e, v) for e, v, _ in found.applied] == [("b", 1), ("a", 2)]
    assert [w for _, _, w in found.applied] == pytest.approx([0.4995, 0.3])
    many = by_edit([0.01] * 100, [(f"e{i}", 1) for i in range(100)])
    assert len(many.applied) == 32
