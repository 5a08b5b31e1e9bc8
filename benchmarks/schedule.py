"""How fast a donor learns: linear warm-up by steps, then a cosine. Pure arithmetic."""

from __future__ import annotations

import math
from dataclasses import dataclass

FLOOR = 0.05
"""Share of the learning rate that is left at the end."""


@dataclass(frozen=True)
class Schedule:
    """A run of so many steps."""

    steps: int
    learning_rate: float
    warmup_steps: int

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.steps)))
        return self.learning_rate * warm * (FLOOR + (1 - FLOOR) * cosine)
