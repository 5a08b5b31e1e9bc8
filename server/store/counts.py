"""Totals of the store, for metrics, and what each project takes, for admission."""

from __future__ import annotations

from dataclasses import dataclass

from incomes_server.edits import WAITING, EditStatus
from incomes_server.store.schema import edit_sets, edit_versions, edits
from sqlalchemy import Connection, func, select

e, v = edits.c, edit_versions.c


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


def count(conn: Connection) -> StoreCounts:
    """Totals over all projects."""
    sets = select(func.count()).select_from(edit_sets).where(edit_sets.c.deleted_at.is_(None))
    versions = conn.execute(select(v.status, func.count()).group_by(v.status))
    gist_bytes = select(func.coalesce(func.sum(v.gist_bytes), 0)).where(v.status == EditStatus.READY)
    return StoreCounts(conn.scalar(sets) or 0, {row[0]: row[1] for row in versions}, int(conn.scalar(gist_bytes) or 0))


def use_of_projects(conn: Connection) -> dict[str, ProjectUse]:
    """Edit versions that are in a snapshot or wait to be, and their tokens, by project."""
    query = (
        select(e.project, func.count(), func.sum(v.num_tokens))
        .join_from(edit_versions, edits, e.id == v.edit_id)
        .where(v.status.in_([*WAITING, EditStatus.READY]))
        .group_by(e.project)
    )
    return {project: ProjectUse(int(number), int(tokens)) for project, number, tokens in conn.execute(query)}
