"""Un-rotation against the rotation itself, for every rotary style."""

from __future__ import annotations

import pytest
import torch

from incomes_plugin.selection.attention import Unrotation

T, H, D = 5, 4, 8


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
def test_the_rotation_is_undone(neox: bool, rotary_dim: int, magnitude: float) -> None:
    heads, positions = torch.randn(T, H, D), torch.tensor([0, 7, 7, 63, 12])
    cache = cos_sin_cache(rotary_dim, magnitude)
    undo = Unrotation.of_rows(cache, positions, head_dim=D, neox=neox, dtype=torch.float32)
    torch.testing.assert_close(undo(rotate(heads, cache, positions, neox)), heads, atol=1e-5, rtol=1e-5)
