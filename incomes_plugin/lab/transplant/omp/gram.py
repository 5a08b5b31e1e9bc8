"""OMP for a CPU: all products of atoms once, then one target at a time, whose working set stays in the cache.

With G = A Aᵀ, no step touches the E dimensions. Let q_0, q_1, … be the chosen atoms, orthonormalised in the order of
choice, and row i of W the products of q_i with every atom. With the Cholesky factor L of their Gram matrix, atom j adds

    L[i, :i] = W[:i, j]                            L[i, i]² = G[j, j] - |L[i, :i]|²
    W[i] = (G[j] - L[i, :i] W[:i]) / L[i, i]       y_i = <r, a_j> / L[i, i]       <r, a> -= y_i W[i] for all atoms a

which costs A k²/2 multiplications a target. NumPy: its calls on small vectors are several times cheaper than torch's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from incomes_plugin.lab.transplant.omp.codes import SMALLEST_PIVOT, TOLERANCE, RowProgress, SparseCodes

Floats = NDArray[np.float32]
BATCH = 256
"""Targets whose products with all atoms are taken by one matrix product."""
FAINTEST = 1e-5
"""A cosine of residual and atom, at the target's length, that is rounding: the energy left is known to 1e-7 only."""


@dataclass(frozen=True)
class _Workspace:
    """Buffers of one target, used again for the next.

    Attributes:
        products: W, `[k, A]`.
        magnitudes, scratch: `[A]`.
    """

    products: Floats
    magnitudes: Floats
    scratch: Floats

    @classmethod
    def of(cls, num_atoms: int, k: int) -> _Workspace:
        """Room for `k` choices among `num_atoms`."""
        empty = [np.empty(shape, np.float32) for shape in ((k, num_atoms), num_atoms, num_atoms)]
        return cls(*empty)


def solve_gram(atoms: torch.Tensor, targets: torch.Tensor, k: int, report: RowProgress | None = None) -> SparseCodes:
    """Sparse codes of `targets` `[M, E]` over `atoms` `[A, E]`, float32; holds an `[A, A]` matrix."""
    dictionary = np.ascontiguousarray(atoms.float().numpy())
    gram = dictionary @ dictionary.T
    space = _Workspace.of(len(dictionary), k)
    support = np.full((len(targets), k), -1, np.int64)
    factors = np.tile(np.eye(k, dtype=np.float32), (min(BATCH, len(targets)), 1, 1))
    coefficients = []
    for start in range(0, len(targets), BATCH):
        batch = targets[start : start + BATCH].float().numpy()
        correlations = batch @ dictionary.T
        energies = np.einsum("me,me->m", batch, batch)
        factor, projections = factors[: len(batch)].copy(), np.zeros((len(batch), k), np.float32)
        for index, energy in enumerate(energies):
            chosen, projections[index] = _choose(gram, correlations[index], float(energy), space)
            count = len(chosen)
            support[start + index, :count] = chosen
            factor[index, :count, :count] = np.tril(space.products[:count, chosen].T)
        coefficients.append(_back_substitute(factor, projections))
        if report:
            report(start + len(batch), len(targets))
    return SparseCodes(torch.from_numpy(support), torch.cat(coefficients) if coefficients else torch.empty(0, k))


def _choose(gram: Floats, correlation: Floats, energy: float, space: _Workspace) -> tuple[list[int], Floats]:
    """Atoms of one target in the order of choice, and y; `correlation` is used up."""
    products, scratch = space.products, space.scratch
    k = len(products)
    chosen: list[int] = []
    projections = np.zeros(k, np.float32)
    smallest, faintest = energy * TOLERANCE**2, energy**0.5 * FAINTEST
    while len(chosen) < k and energy > smallest:
        i = len(chosen)
        np.abs(correlation, out=space.magnitudes)
        space.magnitudes[chosen] = -1
        atom = int(space.magnitudes.argmax())
        if abs(correlation[atom]) <= faintest * gram[atom, atom] ** 0.5:
            break
        row = products[i]
        np.dot(products[:i, atom], products[:i], out=scratch)
        np.subtract(gram[atom], scratch, out=row)
        pivot = float(row[atom])
        if pivot <= SMALLEST_PIVOT * gram[atom, atom]:
            break  # it depends on the chosen ones, so the residual is orthogonal to it, and to all others even more
        row *= pivot**-0.5
        projections[i] = correlation[atom] * pivot**-0.5
        np.multiply(row, projections[i], out=scratch)
        correlation -= scratch
        energy -= float(projections[i]) ** 2
        chosen.append(atom)
    return chosen, projections


def _back_substitute(factor: Floats, projections: Floats) -> torch.Tensor:
    """c of Lᵀ c = y for each target, `[B, k, k]` and `[B, k]` -> `[B, k]`; unused places have a 1 on the diagonal."""
    upper = torch.from_numpy(factor).double().mT
    right = torch.from_numpy(projections).double()[..., None]
    return torch.linalg.solve_triangular(upper, right, upper=True)[..., 0].float()
