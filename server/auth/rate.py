"""Requests a minute, by project: a bucket that holds as many tokens as a minute has requests, and fills evenly."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

MINUTE_S = 60.0


@dataclass(frozen=True)
class Allowance:
    """What a request found.

    Attributes:
        limit: requests in a minute.
        remaining: that the project may send at once now.
        reset_s: until the bucket is full again.
        retry_after_s: 0 = the request may go on, else until the next may.
    """

    limit: int
    remaining: int
    reset_s: float
    retry_after_s: float


class RateLimiter:
    """Buckets by project and kind of request. A project's bucket is forgotten when it would be full."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._full_at: dict[tuple[str, str], float] = {}

    def take(self, project: str, kind: str, limit: int) -> Allowance:
        """Take a token, if there is one. `_full_at` says when the bucket is full; each token taken moves it back by the
        time in which one comes."""
        now, each_s = self._clock(), MINUTE_S / limit
        full_at = max(now, self._full_at.get((project, kind), now))
        wait_s = full_at + each_s - now - MINUTE_S
        if wait_s > 1e-9:
            return Allowance(limit, 0, full_at - now, wait_s)
        full_at += each_s
        self._full_at[project, kind] = full_at
        if len(self._full_at) > 1024:
            self._full_at = {key: at for key, at in self._full_at.items() if at > now}
        remaining = math.floor((MINUTE_S - (full_at - now)) / each_s + 1e-9)
        return Allowance(limit, remaining, full_at - now, 0.0)
