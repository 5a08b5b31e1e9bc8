"""An edit that names others takes their place: they leave the snapshot in the step in which it joins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from incomes_server.edits import WAITING, EditStatus
from incomes_server.store.rows import Transaction, chunks, decode_ids
from incomes_server.store.schema import edit_versions, edits
from sqlalchemy import Connection, bindparam, select, update

from incomes_plugin.errors import EditConflict, EditNotFound

e, v = edits.c, edit_versions.c


def check_superseded(conn: Connection, edit_set: str, edit_ids: Sequence[str]) -> None:
    """Raises EditNotFound: the set has no such edit; EditConflict: it is out of service already."""
    for part in chunks(sorted(set(edit_ids))):
        query = select(e.id, e.retired_at).where(e.id.in_(part), e.edit_set == edit_set)
        found = {row.id: row for row in conn.execute(query)}
        for edit_id in part:
            if edit_id not in found:
                raise EditNotFound(f"the edit set has no edit {edit_id!r} to supersede", param="supersedes")
            if found[edit_id].retired_at is not None:
                raise EditConflict(f"edit {edit_id} is retired or superseded already", param="supersedes")


def superseded_by(conn: Connection, joining: Sequence[str]) -> dict[str, str]:
    """Edits that leave when these join, each with the edit that takes its place.

    A superseded edit that never joined passes on what it would have superseded.

    Args:
        joining: in the order in which the versions that join were written.
    """
    by: dict[str, str] = {}
    names = _names_of(conn, joining)
    while names:
        new = {named: edit_id for edit_id, all_named in names.items() for named in all_named if named not in by}
        by |= new
        names = _names_of(conn, list(new))
    for edit_id in reversed(joining):
        if _is_in_ring(edit_id, by):  # each ring has one that joins
            del by[edit_id]
    for edit_id in by:
        while by[edit_id] in by:  # it does not join itself; there is no ring any more, so this ends
            by[edit_id] = by[by[edit_id]]
    return by


def active_of(conn: Connection, edit_ids: Sequence[str]) -> dict[str, int]:
    """The version of each edit that is in the snapshot; edits without one are left out."""
    found: dict[str, int] = {}
    for part in chunks(edit_ids):
        rows = conn.execute(select(e.id, e.active_version).where(e.id.in_(part), e.active_version.is_not(None)))
        found |= {row.id: row.active_version for row in rows}
    return found


def leave(tx: Transaction, by: Mapping[str, str], set_version: int | None) -> None:
    """Mark edits as superseded that have left the snapshot with `set_version` (None: they never were in it). Those that
    are retired stay so."""
    if not by:
        return
    states = {EditStatus.READY: EditStatus.SUPERSEDED}
    states |= dict.fromkeys((EditStatus.FAILED, EditStatus.CONFLICTED), EditStatus.RETIRED)
    states |= dict.fromkeys(WAITING, EditStatus.SUPERSEDED)
    for before, after in states.items():
        tx.conn.execute(
            update(edit_versions)
            .where(v.edit_id == bindparam("b_edit"), v.status == before)
            .values(status=after, status_reason=bindparam("b_reason"), set_version=set_version, updated_at=tx.now),
            [{"b_edit": edit_id, "b_reason": f"superseded by {new}"} for edit_id, new in by.items()],
        )
    tx.conn.execute(
        update(edits)
        .where(e.id == bindparam("b_edit"), e.retired_at.is_(None))
        .values(retired_at=tx.now, active_version=None),
        [{"b_edit": edit_id} for edit_id in by],
    )
    tx.changed.update(by)
    for edit_id, new in by.items():
        tx.note(edit_id, None, f"superseded by {new}")


def _is_in_ring(edit_id: str, by: Mapping[str, str]) -> bool:
    """Whether edits supersede one another in a ring with this one: one that is replaced may supersede what was written
    after its first version."""
    seen, other = {edit_id}, by.get(edit_id)
    while other is not None and other not in seen:
        seen.add(other)
        other = by.get(other)
    return other == edit_id


def _names_of(conn: Connection, edit_ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """What these edits supersede, of those that have not been in a snapshot yet."""
    names: dict[str, tuple[str, ...]] = {}
    for part in chunks(edit_ids):
        query = select(e.id, e.supersedes).where(e.id.in_(part), e.joined_at.is_(None), e.supersedes.is_not(None))
        names |= {row.id: decode_ids(row.supersedes) for row in conn.execute(query)}
    return names
