"""Quotas of each project: edits, bytes of gists, running requests. They come from the settings; without one for bytes,
projects share the pool equally."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from incomes_plugin.errors import QuotaExceeded


@dataclass(frozen=True)
class Quotas:
    """Limits of one project; `usable_bytes` is what all projects share."""

    edits: int
    gist_bytes: int
    running_requests: int
    usable_bytes: int

    def check_edits(self, used: int, new: int) -> None:
        """Raises QuotaExceeded."""
        _check("edits", "max_edits_per_project", self.edits, used, new)

    def check_bytes(self, used: int, new: int) -> None:
        """Raises QuotaExceeded. Does nothing where the quota is the whole pool: then the pool is full, which is another
        error."""
        if self.gist_bytes < self.usable_bytes:
            _check("bytes of gists", "max_gist_bytes_per_project", self.gist_bytes, used, new)


class RunningRequests:
    """Counts the generations that run, by project."""

    def __init__(self, quotas: Quotas) -> None:
        self._limit = quotas.running_requests
        self._running: Counter[str] = Counter()

    @contextmanager
    def of(self, project: str) -> Iterator[None]:
        """One more inside the block. Raises QuotaExceeded."""
        _check("running requests", "max_running_requests_per_project", self._limit, self._running[project], 1)
        self._running[project] += 1
        try:
            yield
        finally:
            self._running[project] -= 1


def _check(what: str, setting: str, limit: int, used: int, new: int) -> None:
    if used + new > limit:
        raise QuotaExceeded(
            f"the project has {used} of at most {limit} {what}, {new} more are too many; retire edits, wait for "
            f"requests to end, or ask for a larger `{setting}`"
        )
