"""Quotas of each project: edits, bytes of gists, running requests, requests a minute.

They come from the settings, and an operator may set others for a project; without one for bytes, projects share the
pool equally.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from incomes_plugin.errors import QuotaExceeded

T = TypeVar("T")


@dataclass(frozen=True)
class Quotas:
    """Limits of one project; `usable_bytes` is what all projects share."""

    edits: int
    gist_bytes: int
    running_requests: int
    usable_bytes: int
    chat_per_minute: int | None = None
    writes_per_minute: int | None = None

    def of(self, project: str) -> Quotas:
        """The same for each project."""
        return self

    def check_edits(self, used: int, new: int) -> None:
        """Raises QuotaExceeded."""
        _check("edits", "max_edits_per_project", self.edits, used, new)

    def check_bytes(self, used: int, new: int) -> None:
        """Raises QuotaExceeded. Does nothing where the quota is the whole pool: then the pool is full, which is another
        error."""
        if self.gist_bytes < self.usable_bytes:
            _check("bytes of gists", "max_gist_bytes_per_project", self.gist_bytes, used, new)


@dataclass(frozen=True)
class Limits:
    """What an operator has set for one project; None = as the settings say."""

    max_edits: int | None = None
    max_gist_bytes: int | None = None
    max_running_requests: int | None = None
    chat_requests_per_minute: int | None = None
    writes_per_minute: int | None = None


class QuotaSource(Protocol):
    """Says what a project may use now."""

    def of(self, project: str) -> Quotas:
        """The project's quotas."""


@dataclass(frozen=True)
class ProjectQuotas:
    """Quotas of the settings, with those that the database has for a project.

    Attributes:
        projects: how many projects share the pool; None where the settings give each a fixed quota of it.
        limits: what the database says of a project.
    """

    default: Quotas
    projects: Callable[[], int] | None
    limits: Callable[[str], Limits]

    def of(self, project: str) -> Quotas:
        """The project's quotas now."""
        default, limits = self.default, self.limits(project)
        share = default.gist_bytes if self.projects is None else default.usable_bytes // max(1, self.projects())
        return replace(
            default,
            edits=_either(limits.max_edits, default.edits),
            gist_bytes=_either(limits.max_gist_bytes, share),
            running_requests=_either(limits.max_running_requests, default.running_requests),
            chat_per_minute=_either(limits.chat_requests_per_minute, default.chat_per_minute),
            writes_per_minute=_either(limits.writes_per_minute, default.writes_per_minute),
        )


class RunningRequests:
    """Counts the generations that run, by project."""

    def __init__(self, quotas: QuotaSource) -> None:
        self._quotas = quotas
        self._running: Counter[str] = Counter()

    @contextmanager
    def of(self, project: str) -> Iterator[None]:
        """One more inside the block. Raises QuotaExceeded."""
        limit = self._quotas.of(project).running_requests
        _check("running requests", "max_running_requests_per_project", limit, self._running[project], 1)
        self._running[project] += 1
        try:
            yield
        finally:
            self._running[project] -= 1


def _either(own: T | None, default: T) -> T:
    return default if own is None else own


def _check(what: str, setting: str, limit: int, used: int, new: int) -> None:
    if used + new > limit:
        raise QuotaExceeded(
            f"the project has {used} of at most {limit} {what}, {new} more are too many; retire edits, wait for "
            f"requests to end, or ask for a larger `{setting}`"
        )
