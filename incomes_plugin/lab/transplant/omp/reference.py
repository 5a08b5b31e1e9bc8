"""OMP as its definition says, in float64, one target after the other: what the fast paths are tested against."""

from __future__ import annotations

import torch

from incomes_plugin.lab.transplant.omp.codes import TOLERANCE, SparseCodes


def solve_reference(atoms: torch.Tensor, targets: torch.Tensor, k: int) -> SparseCodes:
    """Choose the atom that correlates most with the residual, fit all chosen ones by least squares, repeat."""
    atoms, targets = atoms.double(), targets.double()
    support = torch.full((len(targets), k), -1)
    coefficients = torch.zeros(len(targets), k)
    for index, target in enumerate(targets):
        chosen: list[int] = []
        residual, fit = target, target.new_empty(0)
        while len(chosen) < k and residual.norm() > TOLERANCE * target.norm():
            scores = (atoms @ residual).abs()
            scores[chosen] = -1
            chosen.append(int(scores.argmax()))
            columns = atoms[chosen].T
            fit = torch.linalg.lstsq(columns, target[:, None]).solution[:, 0]
            residual = target - columns @ fit
        support[index, : len(chosen)] = torch.tensor(chosen, dtype=torch.long)
        coefficients[index, : len(chosen)] = fit.float()
    return SparseCodes(support, coefficients)
