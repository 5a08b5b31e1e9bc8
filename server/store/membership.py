"""Which versions of edits are in the snapshot of their set: the one rule, asked after whatever may change it.

a gist was made │ a time has come │ a switch │ an approval
  ──► settle: what should be in ──► one version of the log (more only beyond a page)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from incomes_server.edits import WAITING, EditStatus, sources_of
from incomes_server.edits.lifecycle import in_force, next_due
from incomes_server.store.log import PAGE_BYTES, append
from incomes_server.store.objects import keep, stored
from incomes_server.store.rows import AnyRow, Transaction, chunks
from incomes_server.store.schema import edit_versions, edits
from incomes_server.store.sealing import boxes_of
from incomes_server.store.superseded import active_of, leave, superseded_by
from sqlalchemy import Connection, bindparam, func, or_, select, update

from incomes_plugin.gist.edit import EditKey

e, v = edits.c, edit_versions.c

_THIS_VERSION = (v.edit_id == bindparam("b_edit")) & (v.version == bindparam("b_version"))
MOST_DUE = 1000
"""Versions whose time has come that one transaction takes; more of them take several."""


@dataclass(frozen=True)
class MadeGist:
    """A gist that the store has not kept yet; `num_bytes` is its size before it is encrypted."""

    blob: bytes
    fingerprint: str
    num_bytes: int = 0


def settle(
    tx: Transaction, edit_set: str, edit_ids: Sequence[str], made: Mapping[EditKey, MadeGist] | None = None
) -> None:
    """Of each edit that is not switched off, the newest version that is ready, approved where that is needed, and in
    force is in the snapshot; older ones are superseded.

    Args:
        made: versions that become ready now, with their gists.
    """
    made = _sealed(tx.conn, made) if made else {}
    ready = _ready_versions(tx.conn, edit_ids, made)
    active = active_of(tx.conn, edit_ids)
    wanted = {edit_id: _newest_in_force(rows, tx.now) for edit_id, rows in ready.items()}
    joining = [row for edit_id, row in wanted.items() if row is not None and row.version != active.get(edit_id)]
    by = superseded_by(tx.conn, [row.edit_id for row in sorted(joining, key=lambda row: row.seq)])
    joining = [row for row in joining if row.edit_id not in by]
    going = {edit_id: version for edit_id, version in active.items() if wanted.get(edit_id) is None}
    gone = active_of(tx.conn, list(by))
    _keep_others(tx, joining, by, made)
    for page in _pages(joining, made):
        _step(tx, edit_set, page, ready, active, going, by, gone, made)
        going = {}
    if going:
        _step(tx, edit_set, [], ready, active, going, by, gone, made)


def next_due_at(conn: Connection) -> int | None:
    """The next moment at which `apply_due` has something to do; None = there is none."""
    return conn.scalar(select(func.min(v.due_at)).where(v.due_at.is_not(None)))


def apply_due(tx: Transaction) -> None:
    """Let in what is in force from now on, and retire what has expired."""
    columns = (v.edit_id, v.version, v.status, v.effective_from, v.expires_at, e.edit_set)
    query = select(*columns).join_from(edit_versions, edits, e.id == v.edit_id).where(v.due_at <= tx.now)
    by_set: dict[str, dict[str, None]] = defaultdict(dict)
    for row in tx.conn.execute(query.order_by(v.due_at, v.seq).limit(MOST_DUE)).all():
        by_set[row.edit_set][row.edit_id] = None
        this = (v.edit_id == row.edit_id) & (v.version == row.version)
        due_at = next_due(row.effective_from, row.expires_at, tx.now)
        tx.conn.execute(update(edit_versions).where(this).values(due_at=due_at))
        if row.expires_at is not None and row.expires_at <= tx.now:
            expired = {"status": EditStatus.RETIRED, "status_reason": "expired", "updated_at": tx.now}
            live = v.status.in_(sources_of(EditStatus.RETIRED))
            tx.conn.execute(update(edit_versions).where(this, live).values(expired))
            tx.changed.add(row.edit_id)
    for edit_set, edit_ids in by_set.items():
        settle(tx, edit_set, list(edit_ids))
        _retire_those_without_a_version(tx, list(edit_ids))


def _ready_versions(
    conn: Connection, edit_ids: Sequence[str], made: Mapping[EditKey, MadeGist]
) -> dict[str, list[AnyRow]]:
    """Versions with a gist, oldest first, by edit."""
    found: dict[str, list[AnyRow]] = defaultdict(list)
    for part in chunks(edit_ids):
        status = or_(v.status == EditStatus.READY, v.status.in_(WAITING)) if made else v.status == EditStatus.READY
        columns = (
            v.edit_id, v.version, v.status, v.effective_from, v.expires_at, v.gist_bytes, v.needs_approval,
            v.approved_by, v.seq, e.disabled_at,
        )  # fmt: skip
        query = select(*columns).join_from(edit_versions, edits, e.id == v.edit_id)
        query = query.where(v.edit_id.in_(part), status).order_by(v.seq)
        for row in conn.execute(query):
            if row.status == EditStatus.READY or (row.edit_id, row.version) in made:
                found[row.edit_id].append(row)
    return found


def _newest_in_force(rows: Sequence[AnyRow], now: int) -> AnyRow | None:
    return next((row for row in reversed(rows) if _may_be_in(row, now)), None)


def _may_be_in(row: AnyRow, now: int) -> bool:
    approved = row.needs_approval is None or row.approved_by is not None
    return row.disabled_at is None and approved and in_force(row.effective_from, row.expires_at, now)


def _pages(joining: Sequence[AnyRow], made: Mapping[EditKey, MadeGist]) -> Iterator[list[AnyRow]]:
    """Split so that one version of the log fits one page of a delta."""
    page: list[AnyRow] = []
    size = 0
    for row in joining:
        new = made.get((row.edit_id, row.version))
        num_bytes = row.gist_bytes if new is None else new.num_bytes
        if page and size + num_bytes > PAGE_BYTES:
            yield page
            page, size = [], 0
        page.append(row)
        size += num_bytes
    if page:
        yield page


def _step(
    tx: Transaction,
    edit_set: str,
    page: Sequence[AnyRow],
    ready: Mapping[str, Sequence[AnyRow]],
    active: Mapping[str, int],
    going: Mapping[str, int],
    by: Mapping[str, str],
    gone: Mapping[str, int],
    made: Mapping[EditKey, MadeGist],
) -> None:
    """One version of the edit set: new versions in, the versions they replace, the edits they supersede and those whose
    time is over out."""
    joining = {row.edit_id: row.version for row in page}
    superseded = {edit_id: new for edit_id, new in by.items() if new in joining}
    removed = {edit_id: active[edit_id] for edit_id in joining if edit_id in active}
    removed |= {edit_id: gone[edit_id] for edit_id in superseded if edit_id in gone} | dict(going)
    set_version = append(tx, edit_set, added=list(joining.items()), removed=list(removed.items()))
    leave(tx, superseded, set_version)
    older = [(r.edit_id, r.version) for i, new in joining.items() for r in ready[i] if r.version < new]
    mark(tx, older, status=EditStatus.SUPERSEDED, set_version=set_version)
    _set(tx, [(ref, {"set_version": set_version}) for ref in going.items()])
    _set(tx, [(ref, _ready_values(made.get(ref), tx.now) | {"set_version": set_version}) for ref in joining.items()])
    if joining:
        tx.conn.execute(
            update(edits)
            .where(e.id == bindparam("b_edit"))
            .values(active_version=bindparam("b_version"), joined_at=func.coalesce(e.joined_at, tx.now)),
            [{"b_edit": edit_id, "b_version": version} for edit_id, version in joining.items()],
        )
    for part in chunks(list(going)):
        tx.conn.execute(update(edits).where(e.id.in_(part)).values(active_version=None))
    tx.changed.update(joining, going)


def _keep_others(
    tx: Transaction, joining: Sequence[AnyRow], by: Mapping[str, str], made: Mapping[EditKey, MadeGist]
) -> None:
    """Gists of versions that are ready and do not join: their time has not come, or a newer version is in the snapshot
    already."""
    now = {(row.edit_id, row.version) for row in joining}
    held = [ref for ref in made if ref not in now and ref[0] not in by]
    _set(tx, [(ref, _ready_values(made[ref], tx.now)) for ref in held])
    tx.changed.update(edit_id for edit_id, _ in held)


def _sealed(conn: Connection, made: Mapping[EditKey, MadeGist]) -> dict[EditKey, MadeGist]:
    """As they are stored: under the data keys of their versions."""
    boxes = boxes_of(conn, list(made))
    blobs = stored(conn, [boxes[ref].seal("blob", ref, gist.blob) for ref, gist in made.items()])
    return {
        ref: MadeGist(blob, gist.fingerprint, len(gist.blob))
        for (ref, gist), blob in zip(made.items(), blobs, strict=True)
    }


def _ready_values(gist: MadeGist | None, now: int) -> dict[str, object]:
    if gist is None:
        return {}
    values = {"status": EditStatus.READY, "status_reason": None, "updated_at": now}
    return values | {"gist_bytes": gist.num_bytes, "fingerprint": gist.fingerprint, "blob": gist.blob}


def _set(tx: Transaction, changes: Sequence[tuple[EditKey, dict[str, object]]]) -> None:
    """Set values of single versions; those with the same columns go in one statement."""
    by_columns: dict[tuple[str, ...], list[dict[str, object]]] = defaultdict(list)
    for (edit_id, version), values in changes:
        bound = {f"b_{name}": value for name, value in values.items()}
        by_columns[tuple(values)].append({"b_edit": edit_id, "b_version": version} | bound)
    for columns, rows in by_columns.items():
        statement = update(edit_versions).where(_THIS_VERSION)
        tx.conn.execute(statement.values({name: bindparam(f"b_{name}") for name in columns}), rows)
        keep(tx.conn, [row.get("b_blob") for row in rows])


def mark(tx: Transaction, refs: Sequence[EditKey], *, status: EditStatus, set_version: int | None) -> None:
    """Set the status of versions."""
    _set(tx, [(ref, {"status": status, "set_version": set_version, "updated_at": tx.now}) for ref in refs])


def _retire_those_without_a_version(tx: Transaction, edit_ids: Sequence[str]) -> None:
    """An edit whose last version has expired is retired: its external id is free, and it can be restored."""
    for part in chunks(edit_ids):
        live = select(v.edit_id).where(v.edit_id.in_(part), v.status.in_([*WAITING, EditStatus.READY]))
        tx.conn.execute(
            update(edits)
            .where(e.id.in_(part), e.retired_at.is_(None), e.id.not_in(live))
            .values(retired_at=tx.now, active_version=None)
        )
