"""OMP for a GPU: one matrix product of all residuals with all atoms a step, and a Cholesky factor for each target.

The residual is built anew from the coefficients in every step, so rounding does not add up over steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from incomes_plugin.lab.transplant.omp.codes import SMALLEST_PIVOT, TOLERANCE, RowProgress, SparseCodes

BATCH_BYTES = 8 * 2**30
"""Room for the atoms that a batch of targets has chosen and for its scores."""


@torch.inference_mode()
def solve_residual(
    atoms: torch.Tensor, targets: torch.Tensor, k: int, report: RowProgress | None = None, *, exact: bool = True
) -> SparseCodes:
    """Sparse codes of `targets` `[M, E]` over `atoms` `[A, E]`, on the device of the atoms.

    Args:
        exact: products in float32; else TensorFloat-32 where the device has it.
    """
    atoms = atoms.float().contiguous()
    step = max(1, BATCH_BYTES // (4 * (k * atoms.shape[1] + 2 * len(atoms))))
    codes = []
    with _products(exact):
        for start in range(0, len(targets), step):
            batch = targets[start : start + step].to(atoms.device, torch.float32)
            codes.append(_solve_batch(atoms, batch, k))
            if report:
                report(start + len(batch), len(targets))
    if not codes:
        return SparseCodes(torch.empty(0, k, dtype=torch.long), torch.empty(0, k))
    return SparseCodes(*(torch.cat([code[part] for code in codes]).cpu() for part in (0, 1)))


def _solve_batch(atoms: torch.Tensor, targets: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Support `[B, k]` and coefficients `[B, k]` of one batch."""
    count, width = targets.shape
    support = torch.full((count, k), -1, device=atoms.device)
    chosen = targets.new_zeros(count, k, width)
    factor = torch.eye(k, device=atoms.device).expand(count, k, k).clone()
    products = targets.new_zeros(count, k)
    coefficients = targets.new_zeros(count, k)
    residual, lengths = targets, targets.norm(dim=1)
    active = lengths > 0
    for i in range(k):
        scores = (residual @ atoms.T).abs_()
        scores.scatter_(
            1, support[:, :i].clamp(min=0), -1
        )  # a done target has -1 here; what it would choose is not used
        best = scores.argmax(dim=1)
        atom = atoms[best]
        row = torch.bmm(chosen[:, :i], atom[..., None])
        row = torch.linalg.solve_triangular(factor[:, :i, :i], row, upper=False)[..., 0]
        energy = atom.square().sum(dim=1)
        pivot = energy - row.square().sum(dim=1)
        active = active & (pivot > SMALLEST_PIVOT * energy)
        support[:, i] = torch.where(active, best, -1)
        chosen[:, i] = torch.where(active[:, None], atom, 0)
        factor[:, i, :i] = torch.where(active[:, None], row, 0)
        factor[:, i, i] = torch.where(active, pivot, 1).sqrt()
        products[:, i] = (chosen[:, i] * targets).sum(dim=1)
        fit = torch.cholesky_solve(products[:, : i + 1, None], factor[:, : i + 1, : i + 1])
        coefficients[:, : i + 1] = fit[..., 0]
        residual = targets - torch.bmm(fit.mT, chosen[:, : i + 1])[:, 0]
        active = active & (residual.norm(dim=1) > TOLERANCE * lengths)
        if not active.any():
            break
    return support, coefficients


@contextmanager
def _products(exact: bool) -> Iterator[None]:
    """Precision of float32 matrix products inside."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest" if exact else "high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
