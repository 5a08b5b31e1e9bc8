"""Summaries of repeated measurements: medians with their spread, never a mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median


def summary(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    """Median, smallest and largest value, and how many there were."""
    return {
        "median": round(median(values), digits),
        "min": round(min(values), digits),
        "max": round(max(values), digits),
        "runs": len(values),
    }


def percentile(values: Sequence[float], percent: float) -> float:
    """Nearest-rank percentile."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def ratios(values: Sequence[float], base: Sequence[float]) -> list[float]:
    """Ratio run by run: neighbours in time share the machine's mood."""
    return [value / stock for value, stock in zip(values, base, strict=True)]
