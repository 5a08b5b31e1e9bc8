"""Kill switches of an edit, an edit set and the whole server, and the second person who lets an edit in.

A switch moves the versions of the edit sets that it concerns, also where their snapshots stay as they are: so replicas
learn of it by the delta, and their acknowledgement means that the next request knows it.
"""

from __future__ import annotations

from incomes_server.edits import WAITING, EditStatus, check_version
from incomes_server.store.edit_sets import find_edit_set
from incomes_server.store.edits import find_row
from incomes_server.store.log import SERVER_OFF, append
from incomes_server.store.membership import settle
from incomes_server.store.rows import Transaction
from incomes_server.store.schema import edit_sets, edit_versions, edits, meta
from sqlalchemy import Connection, delete, insert, select, update

from incomes_plugin.errors import EditConflict
from incomes_plugin.gist.edit import EditKey

e, v, s = edits.c, edit_versions.c, edit_sets.c


def switch_edit(
    tx: Transaction, project: str, edit_id: str, on: bool, if_match: tuple[int, ...] | None = None
) -> list[EditKey]:
    """Off: no request reads it, in whatever snapshot; one that is retired may still be in a label's. It keeps its
    state, and comes back when it is switched on. Raises EditConflict: its set is deleted; EtagMismatch."""
    row = find_row(tx.conn, project, edit_id)
    check_version(edit_id, row.head_version, if_match)
    if tx.conn.scalar(select(s.deleted_at).where(s.id == row.edit_set)) is not None:
        raise EditConflict(f"the edit set of {edit_id} is deleted")
    if on == (row.disabled_at is None):
        tx.replayed = True
        return [(edit_id, row.head_version)]
    tx.conn.execute(update(edits).where(e.id == edit_id).values(disabled_at=None if on else tx.now))
    before = _version(tx.conn, row.edit_set)
    settle(tx, row.edit_set, [edit_id])
    if _version(tx.conn, row.edit_set) == before:
        append(tx, row.edit_set)
    tx.changed.add(edit_id)
    tx.note(edit_id, *(("disabled", "enabled") if on else ("enabled", "disabled")))
    return [(edit_id, row.head_version)]


def switch_edit_set(tx: Transaction, project: str, edit_set: str, on: bool) -> list[EditKey]:
    """Off: its requests are answered without edits, and say so. Raises EditSetNotFound."""
    found = find_edit_set(tx.conn, project, edit_set, lock=True)
    if on == (found.disabled_at is None):
        tx.replayed = True
        return [(found.id, found.version)]
    tx.conn.execute(update(edit_sets).where(s.id == found.id).values(disabled_at=None if on else tx.now))
    version = append(tx, found.id)
    tx.note(f"{found.id} switch", *(("disabled", "enabled") if on else ("enabled", "disabled")))
    return [(found.id, version)]


def switch_server(tx: Transaction, on: bool) -> dict[str, int]:
    """The same for all edit sets of all projects. Returns the versions to wait for, by edit set."""
    tx.replayed = on == is_server_on(tx.conn)
    if not tx.replayed:
        tx.conn.execute(delete(meta).where(meta.c.key == SERVER_OFF))
        if not on:
            tx.conn.execute(insert(meta).values(key=SERVER_OFF, value=str(tx.now)))
        for edit_set in list(tx.conn.scalars(select(s.id).where(s.deleted_at.is_(None)).order_by(s.seq))):
            append(tx, edit_set)
        tx.notes.clear()  # sets of other projects
        tx.note("server", *(("disabled", "enabled") if on else ("enabled", "disabled")))
    query = select(s.id, s.version).where(s.deleted_at.is_(None))
    return {row.id: row.version for row in tx.conn.execute(query)}


def is_server_on(conn: Connection) -> bool:
    """Whether the server's edits are switched on."""
    return conn.scalar(select(meta.c.value).where(meta.c.key == SERVER_OFF)) is None


def approve_edit(tx: Transaction, project: str, edit_id: str, if_match: tuple[int, ...] | None = None) -> list[EditKey]:
    """The newest version may join: somebody else than its writer has looked at it.

    Raises:
        EditConflict: the writer's own key approves, or there is nothing to approve.
        EtagMismatch: another version is the newest.
    """
    row = find_row(tx.conn, project, edit_id)
    check_version(edit_id, row.head_version, if_match)
    this = (v.edit_id == edit_id) & (v.version == row.head_version)
    version = tx.conn.execute(select(v.status, v.needs_approval, v.written_by, v.approved_by).where(this)).one()
    if version.needs_approval is None or version.status not in {*WAITING, EditStatus.READY}:
        raise EditConflict(f"version {row.head_version} of edit {edit_id} waits for no approval")
    if version.approved_by is not None:
        tx.replayed = True
        return [(edit_id, row.head_version)]
    if version.written_by == tx.actor:
        raise EditConflict(
            f"version {row.head_version} of edit {edit_id} was written with this API key; another person's key "
            "has to approve it"
        )
    tx.conn.execute(update(edit_versions).where(this).values(approved_by=tx.actor, approved_at=tx.now))
    settle(tx, row.edit_set, [edit_id])
    tx.changed.add(edit_id)
    tx.note(edit_id, f"version {row.head_version} waits for approval", f"version {row.head_version} approved")
    return [(edit_id, row.head_version)]


def _version(conn: Connection, edit_set: str) -> int:
    return conn.execute(select(s.version).where(s.id == edit_set)).scalar_one()
