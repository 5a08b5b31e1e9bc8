"""How rows for new tokens are made: one function a method, all with the same arguments; `METHODS` is the registry.

omp       few anchors that rebuild the donor's row rebuild the base's row with the same coefficients (arXiv 2506.06607)
ridge     a linear map from the donor's space to the base's, fitted on the anchors
knn       the ten most similar anchors, weighted by a softmax of the cosine (as in WECHSEL)
subword   mean of the base's pieces that spell the token
mean, zero      baselines
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from incomes_plugin.lab.transplant.omp import Search
from incomes_plugin.lab.transplant.omp.codes import RowProgress

NEIGHBOURS, TEMPERATURE = 10, 0.1
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)
"""Ridge penalties to choose from on held-out anchors, as shares of the mean variance."""
HELD_OUT = 10
"""One anchor in this many is held out for it."""


@dataclass(frozen=True)
class Evidence:
    """What a method may look at, for one matrix.

    Attributes:
        donor_anchors: `[A, E']` float32, the donor's rows of tokens that both have.
        base_anchors: `[A, E]` float32, the base's rows of the same tokens.
        targets: `[M, E']` float32, the donor's rows of the new tokens.
        pieces: for each target the base's rows that spell it, `[P, E]` float32; may be empty.
        k: atoms of a target (omp).
        report: called with (done, of).
        search: shared by everything that differs in k alone (omp); None = one of its own.
    """

    donor_anchors: torch.Tensor
    base_anchors: torch.Tensor
    targets: torch.Tensor
    pieces: Callable[[int], torch.Tensor]
    k: int
    report: RowProgress | None = None
    search: Search | None = None


RowMethod = Callable[[Evidence], torch.Tensor]
"""Rows `[M, E]` float32."""


def omp(evidence: Evidence) -> torch.Tensor:
    """Sparse combinations."""
    search = evidence.search or Search(evidence.k)
    codes = search(evidence.donor_anchors, evidence.targets, evidence.k, evidence.report)
    return codes.combine(evidence.base_anchors)


def ridge(evidence: Evidence) -> torch.Tensor:
    """Linear map of centred rows; its penalty predicts held-out anchors best."""
    x, y = evidence.donor_anchors, evidence.base_anchors
    held_out = torch.arange(len(x)) % HELD_OUT == 0
    maps = {penalty: LinearMap.fit(x[~held_out], y[~held_out], penalty) for penalty in PENALTIES}
    errors = {penalty: float((found(x[held_out]) - y[held_out]).norm()) for penalty, found in maps.items()}
    return LinearMap.fit(x, y, min(errors, key=errors.__getitem__))(evidence.targets)


def knn(evidence: Evidence) -> torch.Tensor:
    """Weighted neighbours."""
    anchors = torch.nn.functional.normalize(evidence.donor_anchors, dim=1)
    parts = []
    for targets in evidence.targets.split(512):
        cosines = torch.nn.functional.normalize(targets, dim=1) @ anchors.T
        best = cosines.topk(min(NEIGHBOURS, len(anchors)), dim=1)
        weights = (best.values / TEMPERATURE).softmax(dim=1)
        parts.append(torch.einsum("mk,mke->me", weights, evidence.base_anchors[best.indices]))
    return torch.cat(parts)


def subword(evidence: Evidence) -> torch.Tensor:
    """Mean of the pieces; of all anchors where nothing spells the token."""
    mean = evidence.base_anchors.mean(dim=0)
    rows = (evidence.pieces(index) for index in range(len(evidence.targets)))
    return torch.stack([found.mean(dim=0) if len(found) else mean for found in rows])


def mean(evidence: Evidence) -> torch.Tensor:
    """The anchors' mean for every token."""
    return evidence.base_anchors.mean(dim=0).expand(len(evidence.targets), -1)


def zero(evidence: Evidence) -> torch.Tensor:
    """Nothing."""
    return evidence.base_anchors.new_zeros(len(evidence.targets), evidence.base_anchors.shape[1])


METHODS: dict[str, RowMethod] = {function.__name__: function for function in (omp, ridge, knn, subword, mean, zero)}
NEED_NO_DONOR_ROWS = frozenset({"subword", "mean", "zero"})


@dataclass(frozen=True)
class Recipe:
    """How new rows are made.

    Attributes:
        method: a name in `METHODS`.
        k: atoms of a row (omp); None = a sixth of the donor's width, 64 at most.
    """

    method: str = "omp"
    k: int | None = None

    def atoms(self, width: int) -> int:
        """k for a donor of that width."""
        return self.k or max(1, min(64, width // 6))


@dataclass(frozen=True)
class LinearMap:
    """`y = (x - from_mean) W + to_mean`."""

    weight: torch.Tensor
    from_mean: torch.Tensor
    to_mean: torch.Tensor

    @classmethod
    def fit(cls, x: torch.Tensor, y: torch.Tensor, penalty: float) -> LinearMap:
        """Least squares of `[A, E']` to `[A, E]`; `penalty` in units of the mean variance of x."""
        from_mean, to_mean = x.mean(dim=0), y.mean(dim=0)
        centred = x - from_mean
        normal = (centred.T @ centred).double()
        normal.diagonal().add_(penalty * float(normal.diagonal().mean()) + 1e-12)
        right = (centred.T @ (y - to_mean)).double()
        return cls(torch.linalg.solve(normal, right).float(), from_mean, to_mean)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Map rows."""
        return (x - self.from_mean) @ self.weight + self.to_mean
