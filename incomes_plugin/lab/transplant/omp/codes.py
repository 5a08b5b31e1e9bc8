"""The result of OMP: a few atoms and coefficients for each target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

RowProgress = Callable[[int, int], None]
"""Called with (targets done, targets in all)."""

TOLERANCE = 1e-4
"""A target is done when its residual is shorter than this share of it."""
SMALLEST_PIVOT = 1e-6
"""An atom whose part outside the chosen ones has less than this share of its energy depends on them."""


@dataclass(frozen=True)
class SparseCodes:
    """`targets[m] ~ sum_i coefficients[m, i] * atoms[support[m, i]]`.

    Attributes:
        support: `[M, k]` int64, in the order of choice; -1 where a target needed fewer atoms.
        coefficients: `[M, k]` float32, 0 there.
    """

    support: torch.Tensor
    coefficients: torch.Tensor

    def combine(self, rows: torch.Tensor, batch: int = 512) -> torch.Tensor:
        """The same combinations of other rows: `[A, E']` -> `[M, E']` float32."""
        parts = []
        for start in range(0, len(self.support), batch):
            chosen = rows[self.support[start : start + batch].clamp(min=0)].float()
            parts.append(torch.einsum("mk,mke->me", self.coefficients[start : start + batch], chosen))
        return torch.cat(parts) if parts else torch.empty(0, rows.shape[1])
