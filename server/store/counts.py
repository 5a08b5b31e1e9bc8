"""Totals of the store, for metrics, and what each project takes, for admission."""

from __future__ import annotations

from dataclasses import dataclass

from incomes_server.edits import WAITING, EditStatus
from incomes_server.store.log import REMOVE
from incomes_server.store.schema import edit_sets, edit_versions, edits, label_heads, log, revisions, verbatims
from sqlalchemy import Connection, func, select

e, v = edits.c, edit_versions.c


@dataclass(frozen=True)
class StoreCounts:
    """How much there is.

    Attributes:
        edits: edit status -> number of edit versions.
        gist_bytes: bytes of all gists in the snapshots' heads.
        verbatims: state -> number of verbatim edit versions.
    """

    edit_sets: int
    edits: dict[str, int]
    gist_bytes: int
    verbatims: dict[str, int]


@dataclass(frozen=True)
class ProjectUse:
    """Edit versions of one project that take room, or will: those in the snapshots and those that wait."""

    edits: int
    tokens: int

    def __add__(self, other: ProjectUse) -> ProjectUse:
        return ProjectUse(self.edits + other.edits, self.tokens + other.tokens)

    def __sub__(self, other: ProjectUse) -> ProjectUse:
        return ProjectUse(self.edits - other.edits, self.tokens - other.tokens)


@dataclass(frozen=True)
class LabelUse:
    """What labels that do not point at the newest state of their edit sets take beside it.

    Attributes:
        edits, tokens: at the labels; their route keys may be there twice.
        left_tokens: of edit versions that are at a label and, at most, no longer in the newest state.
    """

    edits: int = 0
    tokens: int = 0
    left_tokens: int = 0

    def __add__(self, other: LabelUse) -> LabelUse:
        return LabelUse(self.edits + other.edits, self.tokens + other.tokens, self.left_tokens + other.left_tokens)


def count(conn: Connection) -> StoreCounts:
    """Totals over all projects."""
    sets = select(func.count()).select_from(edit_sets).where(edit_sets.c.deleted_at.is_(None))
    versions = conn.execute(select(v.status, func.count()).group_by(v.status))
    gist_bytes = select(func.coalesce(func.sum(v.gist_bytes), 0)).where(v.status == EditStatus.READY)
    states = conn.execute(select(verbatims.c.state, func.count()).group_by(verbatims.c.state))
    by_state = {row[0]: row[1] for row in states}
    by_status = {row[0]: row[1] for row in versions}
    return StoreCounts(conn.scalar(sets) or 0, by_status, int(conn.scalar(gist_bytes) or 0), by_state)


def use_of_projects(conn: Connection) -> dict[str, ProjectUse]:
    """Edit versions that are in a snapshot or wait to be, and their tokens, by project."""
    query = (
        select(e.project, func.count(), func.sum(v.num_tokens))
        .join_from(edit_versions, edits, e.id == v.edit_id)
        .where(v.status.in_([*WAITING, EditStatus.READY]))
        .group_by(e.project)
    )
    return {project: ProjectUse(int(number), int(tokens)) for project, number, tokens in conn.execute(query)}


def use_of_labels(conn: Connection) -> dict[str, LabelUse]:
    """What labels take beside the newest states, by project; a state with several labels counts once."""
    h, s = label_heads.c, edit_sets.c
    query = (
        select(s.project, h.edit_set, h.version, h.num_tokens)
        .join_from(label_heads, edit_sets, s.id == h.edit_set)
        .where(h.version.is_not(None), h.version != s.version)
        .distinct()
    )
    found: dict[str, LabelUse] = {}
    for project, edit_set, version, tokens in conn.execute(query).all():
        found[project] = found.get(project, LabelUse()) + use_at(conn, edit_set, version, tokens)
    return found


def use_at(conn: Connection, edit_set: str, version: int, tokens: int) -> LabelUse:
    """What a former state of an edit set takes beside the newest one."""
    n = select(revisions.c.num_edits).where(revisions.c.edit_set == edit_set, revisions.c.version == version)
    left = (
        select(func.sum(v.num_tokens))
        .join_from(log, edit_versions, (v.edit_id == log.c.edit_id) & (v.version == log.c.edit_version))
        .where(log.c.edit_set == edit_set, log.c.version > version, log.c.op == REMOVE)
    )
    return LabelUse(conn.scalar(n) or 0, tokens, min(tokens, int(conn.scalar(left) or 0)))
