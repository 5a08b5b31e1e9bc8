"""The states that an edit set has had: list them, find one, compare two."""

from __future__ import annotations

from collections import defaultdict

from incomes_server.edits.label import Sealed, SnapshotDiff
from incomes_server.store import labels
from incomes_server.store.edit_sets import find_edit_set
from incomes_server.store.log import net_changes
from incomes_server.store.pages import page_of
from incomes_server.store.rows import AnyRow, snapshot_from
from incomes_server.store.schema import edit_sets, revisions
from sqlalchemy import Connection, exists, func, select

from incomes_plugin.errors import SnapshotNotFound

r = revisions.c


def get_snapshot(conn: Connection, project: str, snapshot: str) -> Sealed:
    """By its id. Raises SnapshotNotFound."""
    s = edit_sets.c
    row = conn.execute(
        select(revisions)
        .join_from(revisions, edit_sets, s.id == r.edit_set)
        .where(r.snapshot == snapshot, r.version >= s.oldest, s.project == project, s.deleted_at.is_(None))
        .order_by(r.version.desc())
    ).first()
    if row is None:
        raise SnapshotNotFound(f"no snapshot {snapshot}")
    return _sealed(row, _names(conn, row.edit_set))


def list_snapshots(
    conn: Connection, project: str, edit_set: str, *, limit: int, after: str | None, order: str
) -> tuple[list[Sealed], bool]:
    """A page of an edit set's states, and whether more follow. A content that came back is listed once, where it came
    last."""
    found = find_edit_set(conn, project, edit_set)
    later = revisions.alias()
    again = exists().where(later.c.snapshot == r.snapshot, later.c.edit_set == r.edit_set, later.c.version > r.version)
    query = select(revisions).where(r.edit_set == found.id, r.version >= found.oldest, ~again)
    cursor = select(func.max(r.version)).where(r.edit_set == found.id, r.snapshot == after)
    rows, has_more = page_of(conn, query, r.version, cursor, limit=limit, after=after, order=order)
    names = _names(conn, found.id)
    return [_sealed(row, names) for row in rows], has_more


def diff(conn: Connection, project: str, edit_set: str, base: str, target: str) -> SnapshotDiff:
    """What lies between two states. Raises SnapshotNotFound, LabelNotFound."""
    found = find_edit_set(conn, project, edit_set)
    before, after = labels.refer(conn, found, base, param="from"), labels.refer(conn, found, target, param="to")
    added, removed = net_changes(conn, found.id, before.version, after.version)
    both = set(added) & set(removed)
    return SnapshotDiff(
        before, after, tuple(e for e in added if e not in both), tuple(e for e in removed if e not in both)
    )


def _names(conn: Connection, edit_set: str) -> dict[str, list[str]]:
    """Labels by the snapshot that they point at."""
    names: dict[str, list[str]] = defaultdict(list)
    for label in labels.labels_of(conn, edit_set):
        names[label.snapshot.id].append(label.name)
    return names


def _sealed(row: AnyRow, names: dict[str, list[str]]) -> Sealed:
    return Sealed(snapshot_from(row.edit_set, row), row.created_at, tuple(names.get(row.snapshot, ())))
