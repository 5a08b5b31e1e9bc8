"""One entry to OMP: the path that fits the device and the memory."""

from __future__ import annotations

from enum import StrEnum

import psutil
import torch

from incomes_plugin.errors import InvalidValue
from incomes_plugin.lab.transplant.omp.codes import RowProgress, SparseCodes
from incomes_plugin.lab.transplant.omp.gram import solve_gram
from incomes_plugin.lab.transplant.omp.residual import solve_residual


class Path(StrEnum):
    """How to solve."""

    GRAM = "gram"
    RESIDUAL = "residual"


def solve(
    atoms: torch.Tensor,
    targets: torch.Tensor,
    k: int,
    *,
    path: Path | None = None,
    exact: bool = True,
    report: RowProgress | None = None,
) -> SparseCodes:
    """At most `k` atoms of `[A, E]` for each target of `[M, E]`.

    Args:
        path: None = Gram on a CPU that has memory for `[A, A]`, else residuals.
        exact: float32 products on a GPU instead of TensorFloat-32.

    Raises:
        InvalidValue: more atoms asked for than there are, or than there are dimensions.
    """
    if not 1 <= k <= min(atoms.shape):
        raise InvalidValue(f"k = {k}: must be from 1 to {min(atoms.shape)} for {tuple(atoms.shape)} atoms", param="k")
    if (path or _fitting_path(atoms)) is Path.GRAM:
        return solve_gram(atoms.cpu(), targets.cpu(), k, report)
    return solve_residual(atoms, targets, k, report, exact=exact)


def _fitting_path(atoms: torch.Tensor) -> Path:
    gram_bytes = 4 * len(atoms) ** 2
    fits = atoms.device.type == "cpu" and gram_bytes < psutil.virtual_memory().available // 2
    return Path.GRAM if fits else Path.RESIDUAL
