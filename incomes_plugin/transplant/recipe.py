"""How rows are made: the choices of one transplant."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """How rows are made.

    Attributes:
        k: atoms of a row (omp); None = a sixth of the donor's width, 64 at most.
    """

    method: str = "omp"
    k: int | None = None
    seed: int = 0

    def atoms(self, width: int) -> int:
        """k for a donor of that width."""
        return self.k or max(1, min(64, width // 6))
