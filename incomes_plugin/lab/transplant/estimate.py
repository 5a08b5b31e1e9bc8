"""One matrix of the base and one of the donor in, the base's matrix for the new vocabulary out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from incomes_plugin.errors import InvalidValue
from incomes_plugin.lab.transplant.methods import METHODS, NEED_NO_DONOR_ROWS, Evidence, Recipe
from incomes_plugin.lab.transplant.omp import Search
from incomes_plugin.lab.transplant.omp.codes import RowProgress
from incomes_plugin.lab.transplant.prepare import MatrixPair, Prepared
from incomes_plugin.lab.transplant.rows import RowPlan

FAINT = 1e-3
"""A row shorter than this share of the median length counts as missing, as an anchor and as a result."""
MODEST = 0.5
"""Largest logit of a new token where a copied token is meant, as a share of the copied token's lead over the average
token."""
CLEAR = 0.5
"""Copied rows that are closer to the mean row than this share of the median distance are left out of the comparison."""
_ROWS = 2048
"""New rows compared at a time."""


@dataclass(frozen=True)
class MatrixJob:
    """What one new matrix is made of.

    Attributes:
        plan: where rows come from.
        anchors: (donor id, base id) of tokens both have, with rows on both sides.
        pieces: base ids that spell each of `plan.estimated`.
        method: a name in `METHODS`.
        k: atoms of a new row (omp); capped by the donor's width.
        search: shared by jobs of one matrix that differ in k alone.
        says: the matrix makes logits, alone or tied.
    """

    plan: RowPlan
    anchors: tuple[tuple[int, int], ...]
    pieces: Sequence[Sequence[int]]
    method: str
    k: int
    search: Search | None = None
    says: bool = True

    @classmethod
    def of(
        cls, prepared: Prepared, pair: MatrixPair, recipe: Recipe, k: int, search: Search | None = None
    ) -> MatrixJob:
        """The job of one matrix of a transplant."""
        says = pair.part == "head" or prepared.base_matrices.head is None
        plan, anchors = prepared.rows, prepared.anchors
        return cls(plan, anchors, prepared.pieces, recipe.method, k, search, says)


@dataclass(frozen=True)
class NewMatrix:
    """A matrix of the new checkpoint.

    Attributes:
        weight: `[V, E]` in the base's type.
        spelled: ids without a usable row in the donor or from the method, made of the base's pieces instead.
    """

    weight: torch.Tensor
    spelled: tuple[int, ...]


@dataclass(frozen=True)
class _Anchors:
    """Rows of tokens that both have, `[A, E']` and `[A, E]` float32; `faint` is the shortest length that counts."""

    donor: torch.Tensor
    base: torch.Tensor
    faint: float

    @property
    def mean(self) -> torch.Tensor:
        """The base's mean row."""
        return self.base.mean(dim=0)


def make_matrix(
    job: MatrixJob, base: torch.Tensor, donor: torch.Tensor | None, report: RowProgress | None = None
) -> NewMatrix:
    """Copied, idle and estimated rows together.

    Args:
        base: `[V_base, E]`.
        donor: `[V_donor, E']`, or None for a donor that is a tokenizer alone.

    Raises:
        InvalidValue: the method needs rows of the donor, or there are hardly any anchors.
    """
    if job.method in NEED_NO_DONOR_ROWS:
        donor = None
    elif donor is None:
        raise InvalidValue(f"{job.method} needs a donor with weights, not a tokenizer alone", param="donor")
    plan, anchors = job.plan, _anchors(job, base, donor)
    weight = torch.empty(plan.num_rows, base.shape[1], dtype=base.dtype)
    copied = plan.sources >= 0
    weight[copied] = base[plan.sources[copied]]
    weight[list(plan.idle)] = anchors.mean.to(base.dtype)
    places = _places_with_rows(plan.estimated, donor, anchors.faint)
    weight[list(plan.estimated)] = float("nan")
    if places:
        ids = [plan.estimated[place] for place in places]
        weight[ids] = METHODS[job.method](_evidence(job, anchors, base, donor, places, report)).to(base.dtype)
    spelled = _spell_the_rest(job, anchors, base, weight)
    if job.says and plan.estimated:
        _shorten_competing_rows(weight, copied, list(plan.estimated))
    return NewMatrix(weight, spelled)


def _evidence(
    job: MatrixJob,
    anchors: _Anchors,
    base: torch.Tensor,
    donor: torch.Tensor | None,
    places: Sequence[int],
    report: RowProgress | None,
) -> Evidence:
    ids = [job.plan.estimated[place] for place in places]
    return Evidence(
        donor_anchors=anchors.donor,
        base_anchors=anchors.base,
        targets=anchors.donor.new_zeros(len(ids), 0) if donor is None else donor[ids].float(),
        pieces=lambda index: base[list(job.pieces[places[index]])].float(),
        k=min(job.k, *anchors.donor.shape),
        report=report,
        search=job.search,
    )


def _spell_the_rest(job: MatrixJob, anchors: _Anchors, base: torch.Tensor, weight: torch.Tensor) -> tuple[int, ...]:
    """Fill estimated rows that are missing or vanish from the base's pieces; returns their ids."""
    ids = list(job.plan.estimated)
    lengths = weight[ids].float().norm(dim=1)
    smallest = 0.0 if job.method == "zero" else FAINT * float(anchors.base.norm(dim=1).median())
    spelled = (
        (~(lengths >= smallest)).nonzero()[:, 0].tolist()
    )  # a missing row is not a number, and no comparison holds
    for place in spelled:
        found = base[list(job.pieces[place])].float()
        weight[ids[place]] = (found.mean(dim=0) if len(found) else anchors.mean).to(base.dtype)
    return tuple(ids[place] for place in spelled)


def _shorten_competing_rows(weight: torch.Tensor, copied: torch.Tensor, estimated: Sequence[int]) -> None:
    """Shorten new rows whose token would be generated where a copied token is meant.

    At a hidden state along a copied row a (all rows without their mean), the copied token's logit is a.a and a new
    token's a.r. A mean of twice the same piece ("--") has that piece's row, and neither could be told from the other.

    Args:
        weight: `[V, E]`, changed in place.
        copied: `[V]` bool.
    """
    rows = weight[copied].float()
    mean = rows.mean(dim=0)
    rows -= mean
    lengths = rows.norm(dim=1)
    clear = lengths >= CLEAR * lengths.median()
    rows = rows[clear] / lengths[clear, None].square()
    for ids in torch.tensor(estimated).split(_ROWS):
        new = weight[ids].float() - mean
        reach = (new @ rows.T).amax(dim=1)
        shares = (MODEST / reach).clamp(min=0, max=1).masked_fill(reach <= MODEST, 1.0)
        weight[ids] = torch.where(shares[:, None] < 1, mean + shares[:, None] * new, weight[ids]).to(weight.dtype)


def _anchors(job: MatrixJob, base: torch.Tensor, donor: torch.Tensor | None) -> _Anchors:
    """Anchors whose rows are neither faint nor there twice."""
    distinct = {base_id: donor_id for donor_id, base_id in reversed(job.anchors)}
    base_ids, donor_ids = (torch.tensor(list(ids), dtype=torch.long) for ids in (distinct, distinct.values()))
    rows = base[base_ids].float()
    keep, faint = _rows_that_count(rows)
    others = rows[:, :0]
    if donor is not None:
        others = donor[donor_ids].float()
        loud, faint = _rows_that_count(others)
        keep &= loud
    if int(keep.sum()) < 2:
        raise InvalidValue(
            f"only {int(keep.sum())} tokens are in both vocabularies: nothing to build on", param="donor"
        )
    return _Anchors(others[keep], rows[keep], faint)


def _rows_that_count(rows: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Which rows are not faint, and the length below which a row is."""
    lengths = rows.norm(dim=1)
    faint = FAINT * float(lengths.median()) if len(rows) else 0.0
    return lengths > faint, faint


def _places_with_rows(ids: Sequence[int], donor: torch.Tensor | None, faint: float) -> list[int]:
    """Places of `ids` that have a row in the donor that says something; all of them if no row is needed."""
    if donor is None:
        return list(range(len(ids)))
    there = torch.tensor([index for index in ids if index < len(donor)], dtype=torch.long)
    loud = (donor[there].float().norm(dim=1) > faint).tolist()
    return [place for place, is_loud in enumerate(loud) if is_loud]
