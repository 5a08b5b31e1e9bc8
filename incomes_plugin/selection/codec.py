"""The codec of a gist: packs keys and values of one token in all reading layers into one short vector, and unpacks it.

    c = P^T ((x - m) / s)        x^ = m + s (P c)

x holds a token's keys before rotary embedding and its values in all reading layers and kv heads, N = 2 L' K D numbers.
Neighbouring layers hold much the same about a token, so R of the N principal directions, the columns of P, keep nearly
all of it. Multi-head latent attention (arXiv 2405.04434) rests on the same observation; here nothing is trained. The
scale s gives keys and values equal
weight. A gist keeps c in 8 bits; a picked edit is decoded once, on its way to the device.
"""

from __future__ import annotations

import torch
from torch import nn

from incomes_plugin.gist.types import GistShape


class Codec(nn.Module):
    """Tensors of the codec; see the module docstring.

    Args:
        shape: of the gists.

    Attributes:
        mean, scale: `[N]`, m and s.
        directions: `[N, R]`, P, orthonormal columns.
    """

    mean: torch.Tensor
    scale: torch.Tensor
    directions: torch.Tensor

    def __init__(self, shape: GistShape) -> None:
        super().__init__()
        self._heads = (len(shape.layers), shape.num_kv_heads, shape.head_dim)
        self.register_buffer("mean", torch.zeros(shape.read_dim))
        self.register_buffer("scale", torch.ones(shape.read_dim))
        self.register_buffer("directions", torch.eye(shape.read_dim, shape.latent_dim))

    @torch.no_grad()
    def fit(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Principal directions of n tokens.

        Args:
            keys, values: `[n, L', K, D]`, keys before rotary embedding.
        """
        flat = torch.cat([keys.flatten(1), values.flatten(1)], -1).float()
        half = flat.shape[1] // 2
        self.mean.copy_(flat.mean(0))
        for part in (slice(half), slice(half, None)):
            self.scale[part] = (flat[:, part] - self.mean[part]).square().mean().sqrt().clamp_min(1e-6)
        covariance = torch.cov(((flat - self.mean) / self.scale).T)
        self.directions.copy_(torch.linalg.eigh(covariance).eigenvectors.flip(-1)[:, : self.directions.shape[1]])

    def encode(self, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """c `[E, R]` float32 of E tokens' keys and values `[E, L', K, D]`."""
        flat = torch.cat([keys.flatten(1), values.flatten(1)], -1).float()
        return ((flat - self.mean) / self.scale) @ self.directions

    def decode(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values `[L', K, E, D]` float32 from c `[E, R]`."""
        flat = torch.addcmul(self.mean, latents.float() @ self.directions.T, self.scale)
        keys, values = flat.view(len(latents), 2, *self._heads).permute(1, 2, 3, 0, 4)
        return keys.contiguous(), values.contiguous()
