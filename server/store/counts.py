"""Totals of the store, for metrics and `doctor`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StoreCounts:
    """How much there is.

    Attributes:
        edits: edit status -> number of edit versions.
        gist_bytes: bytes of all gists in the snapshots' heads.
    """

    edit_sets: int
    edits: dict[str, int]
    gist_bytes: int


@dataclass(frozen=True)
class ProjectUse:
    """Edit versions of one project that take room, or will: those in the snapshots and those that wait."""

    edits: int
    tokens: int

    def __add__(self, other: ProjectUse) -> ProjectUse:
        return ProjectUse(self.edits + other.edits, self.tokens + other.tokens)

    def __sub__(self, other: ProjectUse) -> ProjectUse:
        return ProjectUse(self.edits - other.edits, self.tokens - other.tokens)
