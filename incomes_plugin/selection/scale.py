"""c_N: scale rules, functions of the pool's size (docs/adr/0002). Pure arithmetic, shared by reference and engine."""

from __future__ import annotations

import math
from collections.abc import Mapping
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


@dataclass(frozen=True)
class FixedTemperature:
    """The paper's rule: logits over `temperature` in pools of `from_entries` entries or more, else unchanged."""

    temperature: float = 0.45
    from_entries: int = 10

    def __call__(self, num_entries: int) -> float:
        """Scale of the selection logits for a snapshot with `num_entries` gist entries."""
        return 1 / self.temperature if num_entries >= self.from_entries else 1.0


ScaleRule = LogScale | FixedTemperature


def scale_rule(fields: Mapping[str, float]) -> ScaleRule:
    """The rule with these fields, as an adapter file holds them."""
    if "temperature" in fields:
        return FixedTemperature(fields["temperature"], int(fields["from_entries"]))
    return LogScale(**fields)
