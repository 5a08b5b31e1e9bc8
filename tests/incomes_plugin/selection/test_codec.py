"""The codec keeps what varies together and gives it back."""

from __future__ import annotations

import torch

from incomes_plugin.gist.types import GistShape
from incomes_plugin.selection.codec import Codec

SHAPE = GistShape((0,), (1, 2), num_kv_heads=2, head_dim=4, latent_dim=3)
TOKENS = 400


def low_rank(rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values `[n, L', K, D]`, the values a hundred times as large, that vary in `rank` directions."""
    torch.manual_seed(0)
    numbers = torch.randn(TOKENS, rank) @ torch.randn(rank, SHAPE.read_dim) + torch.randn(SHAPE.read_dim)
    keys, values = numbers.view(TOKENS, 2, 2, 2, 4).unbind(1)
    return keys, 100 * values


def test_what_varies_in_few_directions_comes_back_exactly() -> None:
    keys, values = low_rank(3)
    codec = Codec(SHAPE)
    codec.fit(keys, values)
    latents = codec.encode(keys, values)
    assert latents.shape == (TOKENS, 3)
    found = codec.decode(latents)
    torch.testing.assert_close(found[0], keys.permute(1, 2, 0, 3), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(found[1], values.permute(1, 2, 0, 3), atol=1e-1, rtol=1e-3)


def test_keys_and_values_weigh_alike_and_more_latents_lose_less() -> None:
    keys, values = low_rank(8)
    lost = []
    for latent_dim in (2, 5, 8):
        codec = Codec(GistShape((0,), (1, 2), 2, 4, latent_dim))
        codec.fit(keys, values)
        found = codec.decode(codec.encode(keys, values))
        parts = [
            ((part.permute(2, 0, 1, 3) - true).square().mean() / (true - true.mean(0)).square().mean()).item()
            for part, true in zip(found, (keys, values), strict=True)
        ]
        assert max(parts) < 3 * min(parts) + 1e-6
        lost.append(sum(parts))
    assert lost[0] > lost[1] > lost[2]
