"""One search for several k: a greedy choice begins alike for every k, so a longer code holds all shorter ones.

The first n atoms of a target are the ones that a search for n atoms finds; only the coefficients are fitted again.
"""

from __future__ import annotations

import torch

from incomes_plugin.lab.transplant.omp.codes import RowProgress, SparseCodes
from incomes_plugin.lab.transplant.omp.solve import solve

BATCH = 1024


class Search:
    """Codes of the same targets over the same atoms, for any k up to the longest; searched once.

    Args:
        longest: the largest k that will be asked for; capped by what the atoms allow.
    """

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._codes: SparseCodes | None = None

    def __call__(
        self, atoms: torch.Tensor, targets: torch.Tensor, k: int, report: RowProgress | None = None
    ) -> SparseCodes:
        """Codes of `k` atoms of `[A, E]` for each target of `[M, E]`."""
        if self._codes is None:
            self._codes = solve(atoms, targets, min(max(k, self._longest), *atoms.shape), report=report)
        if k == self._codes.support.shape[1]:
            return self._codes
        return shortened(self._codes, atoms, targets, k)


def shortened(codes: SparseCodes, atoms: torch.Tensor, targets: torch.Tensor, k: int) -> SparseCodes:
    """The best fit of the targets by the first `k` atoms of each code."""
    support = codes.support[:, :k]
    batches = zip(support.split(BATCH), targets.split(BATCH), strict=True)
    parts = [_fit(rows, atoms, goals) for rows, goals in batches]
    return SparseCodes(support, torch.cat(parts) if len(support) else torch.empty(0, k))


def _fit(support: torch.Tensor, atoms: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Least squares, `[B, k]`; an unused place has a 1 on the diagonal, and 0 comes out."""
    used = support >= 0
    chosen = atoms[support.clamp(min=0)].double() * used[..., None]
    gram = chosen @ chosen.mT + torch.diag_embed((~used).double())
    right = torch.einsum("bke,be->bk", chosen, targets.double())
    return torch.cholesky_solve(right[..., None], torch.linalg.cholesky(gram))[..., 0].float()
