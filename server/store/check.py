"""Integrity check: rebuild every edit set from its log and compare with what the tables say. For `doctor` and tests."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import replace

from incomes_server.store.log import ADD
from incomes_server.store.rows import AnyRow, snapshot_from
from incomes_server.store.schema import edit_sets, edit_versions, edits, log, revisions
from sqlalchemy import Connection, select

from incomes_plugin.gist.edit import EditKey
from incomes_plugin.pool.snapshot import SnapshotRef


def problems(conn: Connection) -> list[str]:
    """One line per contradiction; none means that log, revisions and present state agree."""
    found = []
    for edit_set in conn.execute(select(edit_sets).order_by(edit_sets.c.seq)).all():
        found += [f"{edit_set.id}: {problem}" for problem in _of_set(conn, edit_set)]
    return found


def _of_set(conn: Connection, edit_set: AnyRow) -> Iterator[str]:
    head, members = SnapshotRef.empty(edit_set.id), set[EditKey]()
    changes = _changes(conn, edit_set)
    query = select(revisions).where(revisions.c.edit_set == edit_set.id).order_by(revisions.c.version)
    for revision in conn.execute(query):
        before = head.version + 1 if revision.version > edit_set.oldest else revision.version
        added, removed = changes.pop(revision.version, ([], []))
        head = replace(head, version=before - 1).advance(added, removed)
        if head != snapshot_from(edit_set.id, revision):
            yield f"revision {revision.version} does not follow from the log"
        if not members.issuperset(removed) or members.intersection(added):
            yield f"version {revision.version} removes what is not there or adds what is"
        members = (members - set(removed)) | set(added)
    if changes:
        yield f"log versions {sorted(changes)} have no revision"
    if head != snapshot_from(edit_set.id, edit_set):
        yield f"head is {edit_set.version}, the log ends at {head.version}"
    if members != _active(conn, edit_set.id) or not members <= _ready(conn, edit_set.id):
        yield "the log and the active versions differ, or one of these is not ready"


def _changes(conn: Connection, edit_set: AnyRow) -> dict[int, tuple[list[EditKey], list[EditKey]]]:
    """By version; where the log is compacted, by the next revision that is left."""
    left = select(revisions.c.version).where(revisions.c.edit_set == edit_set.id)
    marks = list(conn.scalars(left.where(revisions.c.version <= edit_set.oldest).order_by(revisions.c.version)))
    changes: dict[int, tuple[list[EditKey], list[EditKey]]] = {}
    query = select(log).where(log.c.edit_set == edit_set.id).order_by(log.c.version, log.c.position)
    for row in conn.execute(query):
        version = marks[bisect_left(marks, row.version)] if row.version <= edit_set.oldest else row.version
        added, removed = changes.setdefault(version, ([], []))
        (added if row.op == ADD else removed).append((row.edit_id, row.edit_version))
    return changes


def _ready(conn: Connection, edit_set: str) -> set[EditKey]:
    v = edit_versions.c
    query = select(v.edit_id, v.version).join_from(edit_versions, edits, edits.c.id == v.edit_id)
    rows = conn.execute(query.where(edits.c.edit_set == edit_set, v.status == "ready", v.blob.is_not(None)))
    return {(row.edit_id, row.version) for row in rows}


def _active(conn: Connection, edit_set: str) -> set[EditKey]:
    e = edits.c
    rows = conn.execute(select(e.id, e.active_version).where(e.edit_set == edit_set, e.active_version.is_not(None)))
    return {(row.id, row.active_version) for row in rows}
