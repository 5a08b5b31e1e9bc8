"""What is in an edit set, for an export: which edit versions at one moment, and then, page by page, what they say."""

from __future__ import annotations

from array import array

from incomes_server.edits import Edit
from incomes_server.store.edit_sets import find_edit_set
from incomes_server.store.rows import chunks, edit_from, select_edits, snapshot_from
from incomes_server.store.schema import edit_versions, edits
from sqlalchemy import Connection, select

from incomes_plugin.pool.snapshot import SnapshotRef

e, v = edits.c, edit_versions.c


def members(conn: Connection, project: str, edit_set: str) -> tuple[SnapshotRef, bytes]:
    """The state of a set, and the row numbers of its active edit versions as int64, in the order of their creation.
    What a version says never changes, so the pages that are read later are those of this state. Raises
    EditSetNotFound."""
    found = find_edit_set(conn, project, edit_set)
    query = (
        select(v.seq)
        .join_from(edits, edit_versions, (v.edit_id == e.id) & (v.version == e.active_version))
        .where(e.edit_set == found.id)
        .order_by(v.seq)
    )
    return snapshot_from(found.id, found), array("q", conn.scalars(query)).tobytes()


def contents(conn: Connection, rows: bytes) -> list[Edit]:
    """The edit versions with these row numbers; those that have been erased meanwhile are left out."""
    found = {}
    for part in chunks(array("q", rows)):
        for row in conn.execute(select_edits().add_columns(v.seq).where(v.seq.in_(list(part)))):
            found[row.seq] = edit_from(conn, row)
    return [found[seq] for seq in array("q", rows) if seq in found]
