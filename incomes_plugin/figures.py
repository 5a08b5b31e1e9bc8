"""What routing has done since the engine's start: durations, and how many requests read. Kept where the model runs.

in: one call for each routed request      out: plain numbers, which travel to the server with the engine's status
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Upper bounds of the buckets; one more holds what took longer."""


@dataclass
class RoutingFigures:
    """Totals.

    Attributes:
        buckets: routed requests by duration: not cumulative, one for each of `BOUNDS_S` and one beyond.
        seconds: of all of them.
        read: requests that picked at least one edit; the others are answered as stock vLLM answers them.
    """

    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    seconds: float = 0.0
    read: int = 0

    @property
    def routed(self) -> int:
        """Requests that were routed."""
        return sum(self.buckets)

    def observe(self, seconds: float, picks: int) -> None:
        """Count one request."""
        self.buckets[bisect_left(BOUNDS_S, seconds)] += 1
        self.seconds += seconds
        self.read += picks > 0
