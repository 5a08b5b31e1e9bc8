"""c_N: the one scale rule for every pool size (docs/adr/0002). Pure arithmetic, shared by reference and engine."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class LogScale:
    """c_N = base + slope * ln(1 + n), n = number of gist entries in the snapshot (zero-gist not counted).

    The softmax over n distractors needs logit gaps that grow like ln n, so one (base, slope) serves every n.
    """

    base: float = 1.0
    slope: float = 0.25

    def __call__(self, num_entries: int) -> float:
        """Scale of the selection logits for a snapshot with `num_entries` gist entries."""
        return self.base + self.slope * math.log1p(num_entries)
