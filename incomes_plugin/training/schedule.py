"""How long a run lasts and how fast it learns: a budget in minutes, or in steps. Pure arithmetic."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up by steps, then a cosine over the budget down to `floor` times the learning rate.

    Attributes:
        minutes: budget of time; ignored where `steps` is given.
        steps: budget of steps, or None.
        warmup_share: share of the budget over which the rate rises, if that is longer.
    """

    minutes: float
    steps: int | None
    learning_rate: float
    warmup_steps: int
    floor: float = 0.05
    warmup_share: float = 0.0

    def done(self, step: int, elapsed_s: float) -> float:
        """Share of the budget that is spent, 0 to 1."""
        spent = elapsed_s / (60 * self.minutes) if self.steps is None else step / self.steps
        return min(1.0, spent)

    def rate(self, step: int, elapsed_s: float) -> float:
        """Learning rate of a step."""
        done = self.done(step, elapsed_s)
        warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
        if done < self.warmup_share:
            warm = min(warm, done / self.warmup_share)
        cosine = 0.5 * (1 + math.cos(math.pi * done))
        return self.learning_rate * warm * (self.floor + (1 - self.floor) * cosine)
