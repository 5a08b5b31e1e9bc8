"""Edit sets in the database: create, find, list, delete."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from incomes_server.edits import (
    EditSet,
    EditStatus,
    IdPrefix,
    OnConflict,
    check_name,
    check_version,
    new_id,
    sources_of,
)
from incomes_server.store.log import append
from incomes_server.store.pages import page_of
from incomes_server.store.rows import AnyRow, Transaction, edit_set_from, load_edit_set, snapshot_from
from incomes_server.store.schema import edit_sets, edit_versions, edits
from sqlalchemy import Connection, insert, select, update

from incomes_plugin.errors import EditSetExists, EditSetNotFound
from incomes_plugin.gist.edit import EditKey
from incomes_plugin.pool.snapshot import EMPTY_DIGEST, SnapshotRef

c = edit_sets.c


@dataclass(frozen=True)
class SetHead:
    """What the actor keeps in memory of every edit set, to answer polls without SQL."""

    version: int
    deleted: bool


def find_edit_set(conn: Connection, project: str, edit_set: str, *, lock: bool = False) -> AnyRow:
    """The row of a set that is not deleted, by name or id.

    Raises:
        EditSetNotFound: the project has none.
    """
    query = select(edit_sets).where(
        c.project == project, c.deleted_at.is_(None), (c.id == edit_set) | (c.name == edit_set)
    )
    row = conn.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise EditSetNotFound(f"no edit set {edit_set!r}", param="edit_set")
    return row


def get_edit_set(conn: Connection, project: str, edit_set: str) -> EditSet:
    """Raises EditSetNotFound."""
    return edit_set_from(find_edit_set(conn, project, edit_set))


def list_edit_sets(
    conn: Connection, project: str, *, limit: int, after: str | None, order: str
) -> tuple[list[EditSet], bool]:
    """A page of the project's sets, and whether more follow."""
    query = select(edit_sets).where(c.project == project, c.deleted_at.is_(None))
    cursor = select(c.seq).where(c.project == project, c.id == after)
    rows, has_more = page_of(conn, query, c.seq, cursor, limit=limit, after=after, order=order)
    return [edit_set_from(row) for row in rows], has_more


def create_edit_set(
    tx: Transaction, project: str, name: str, *, two_person: bool = False, on_conflict: OnConflict = OnConflict.FLAG
) -> list[EditKey]:
    """Raises EditSetExists."""
    if _id_of(tx.conn, project, name) is not None:
        raise EditSetExists(f"edit set {name!r} exists", param="name")
    return [(_insert(tx, project, name, two_person=two_person, on_conflict=on_conflict), 0)]


def ensure_edit_set(tx: Transaction, project: str, name: str) -> EditSet:
    """Get the set, made if needed."""
    found = _id_of(tx.conn, project, name)
    tx.replayed = found is not None
    return load_edit_set(tx.conn, found or _insert(tx, project, name))


def delete_edit_set(
    tx: Transaction, project: str, edit_set: str, if_match: tuple[int, ...] | None = None
) -> list[EditKey]:
    """Retire all its edits with one version, then hide it. Raises EditSetNotFound, EtagMismatch."""
    found = find_edit_set(tx.conn, project, edit_set, lock=True)
    check_version(found.id, found.version, if_match)
    e = edits.c
    members = select(e.id).where(e.edit_set == found.id, e.retired_at.is_(None))
    active = tx.conn.execute(
        select(e.id, e.active_version).where(e.edit_set == found.id, e.active_version.is_not(None)).order_by(e.seq)
    )
    removed = [(row.id, row.active_version) for row in active]
    version = append(tx, found.id, removed=removed) if removed else found.version
    tx.changed.update(tx.conn.scalars(members))
    tx.conn.execute(
        update(edit_versions)
        .where(edit_versions.c.edit_id.in_(members), edit_versions.c.status.in_(sources_of(EditStatus.RETIRED)))
        .values(status=EditStatus.RETIRED, updated_at=tx.now, set_version=version)
    )
    tx.conn.execute(
        update(edits)
        .where(e.edit_set == found.id, e.retired_at.is_(None))
        .values(retired_at=tx.now, active_version=None)
    )
    tx.conn.execute(update(edit_sets).where(c.id == found.id).values(deleted_at=tx.now))
    tx.touched.add(found.id)
    tx.note(found.id, snapshot_from(found.id, found).id, "deleted")
    return [(found.id, version)]


def heads(conn: Connection, only: Collection[str] | None = None) -> dict[str, SetHead]:
    """Every edit set, deleted ones too; or those of `only`."""
    query = select(c.id, c.version, c.deleted_at)
    if only is not None:
        query = query.where(c.id.in_(only))
    return {row.id: SetHead(row.version, row.deleted_at is not None) for row in conn.execute(query)}


def news(conn: Connection, live: Collection[str]) -> dict[str, SetHead]:
    """Every edit set that is not deleted, and those of `live` that have been deleted meanwhile by another process."""
    query = select(c.id, c.version).where(c.deleted_at.is_(None))
    found = {row.id: SetHead(row.version, deleted=False) for row in conn.execute(query)}
    gone = set(live) - found.keys()
    return found | (heads(conn, gone) if gone else {})


def _id_of(conn: Connection, project: str, name: str) -> str | None:
    return conn.scalar(select(c.id).where(c.project == project, c.name == name, c.deleted_at.is_(None)))


def _insert(
    tx: Transaction, project: str, name: str, *, two_person: bool = False, on_conflict: OnConflict = OnConflict.FLAG
) -> str:
    edit_set = new_id(IdPrefix.EDIT_SET)
    tx.conn.execute(
        insert(edit_sets).values(
            id=edit_set,
            project=project,
            name=check_name(name),
            created_at=tx.now,
            version=0,
            digest=EMPTY_DIGEST,
            num_edits=0,
            floor=0,
            two_person=1 if two_person else None,
            on_conflict=on_conflict,
        )
    )
    tx.touched.add(edit_set)
    tx.note(edit_set, None, SnapshotRef.empty(edit_set).id)
    return edit_set
