"""A linear associative memory: one matrix, whatever N is. Written by `rules.py` or `recursive.py`."""

from __future__ import annotations

import torch
from torch import nn

from incomes_plugin.lab.facts.memories.whitening import Whitening


class LinearMemory(nn.Module):
    """F(x) = W x, decoded by the largest u . F(x) (arXiv 2412.06538, section 3).

    Args:
        matrix: W `[U, E]`.
        whitening: applied to every query first; the keys it was written with must have passed through it too.
    """

    matrix: torch.Tensor

    def __init__(self, matrix: torch.Tensor, whitening: Whitening | None = None) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix)
        self.whitening = whitening

    def keys(self, raw: torch.Tensor) -> torch.Tensor:
        """Keys `[B, E]` as the matrix knows them."""
        return raw if self.whitening is None else self.whitening(raw)

    def forward(self, queries: torch.Tensor) -> torch.Tensor:
        """Values `[B, U]` of queries `[B, E]`, in the type of the queries."""
        keys = self.keys(queries)
        return keys @ self.matrix.to(keys.dtype).T

    @property
    def num_bytes(self) -> int:
        """Size of what a read needs."""
        whitening = 0 if self.whitening is None else self.whitening.root.nbytes + self.whitening.mean.nbytes
        return self.matrix.nbytes + whitening
