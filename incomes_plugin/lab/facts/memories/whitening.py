"""Makes keys that a linear memory can tell apart: centred, whitened with the model's own covariance, of length 1.

A model's hidden states share a mean and a few strong directions; in those, all keys look alike, and a sum of outer
products returns the same value for every query.
"""

from __future__ import annotations

from typing import Self

import torch
import torch.nn.functional as F
from torch import nn

from incomes_plugin.errors import InvalidValue

SHRINK = 1e-3
"""Share of the mean variance that is added to every direction, so that directions with hardly any variance are not
enlarged without limit."""


class Whitening(nn.Module):
    """x -> normalised C^(-1/2) (x - mean).

    Args:
        mean: `[E]`.
        root: `[E, E]`, symmetric, C^(-1/2).
    """

    mean: torch.Tensor
    root: torch.Tensor

    def __init__(self, mean: torch.Tensor, root: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("root", root)

    @classmethod
    def fit(cls, samples: torch.Tensor, shrink: float = SHRINK) -> Self:
        """Measure mean and covariance of keys `[N, E]`; in float64, kept in float32.

        Raises:
            InvalidValue: fewer than two samples, or one that is not finite.
        """
        if len(samples) < 2 or not bool(torch.isfinite(samples).all()):
            raise InvalidValue("whitening needs at least two finite keys", param="samples")
        exact = samples.double()
        mean = exact.mean(dim=0)
        centred = exact - mean
        covariance = centred.T @ centred / (len(samples) - 1)
        variances, directions = torch.linalg.eigh(covariance)
        floor = shrink * variances.mean().clamp_min(torch.finfo(torch.float32).tiny)
        root = (directions * (variances.clamp_min(0) + floor).rsqrt()) @ directions.T
        return cls(mean.float(), root.float())

    def forward(self, keys: torch.Tensor) -> torch.Tensor:
        """Whitened keys `[B, E]` float32 of length 1 from keys `[B, E]`."""
        return F.normalize((keys.float() - self.mean) @ self.root, dim=-1)
