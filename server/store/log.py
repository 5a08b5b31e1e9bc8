"""The log of an edit set: append one version (`append`), read what lies between two versions (`read_delta`)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from incomes_server.store.fold import Fold
from incomes_server.store.objects import fetched
from incomes_server.store.rows import AnyRow, Transaction, chunks, in_pairs, snapshot_from
from incomes_server.store.schema import edit_sets, edit_versions, edits, log, meta, revisions
from incomes_server.store.vault import box_of
from sqlalchemy import Connection, CursorResult, case, func, insert, select, update

from incomes_plugin.errors import EditSetNotFound, InvalidValue, NotReady
from incomes_plugin.gist.edit import EditKey
from incomes_plugin.pool.snapshot import SnapshotDelta, SnapshotRef

PAGE_BYTES = 8 * 1024 * 1024
ADD, REMOVE = "add", "remove"
SERVER_OFF = "edits_off"
"""Row of `meta`: all edits are switched off."""
MODEL = "model_fingerprint"
"""Row of `meta`: the only model whose gists are accepted."""


def append(tx: Transaction, edit_set: str, *, added: Sequence[EditKey] = (), removed: Sequence[EditKey] = ()) -> int:
    """Commit one change of the snapshot; returns the new version of the edit set."""
    c = edit_sets.c
    row = tx.conn.execute(select(c.version, c.digest, c.num_edits).where(c.id == edit_set).with_for_update()).one()
    before = snapshot_from(edit_set, row)
    head = before.advance(added, removed)
    state = {"version": head.version, "digest": head.digest, "num_edits": head.num_edits}
    tx.conn.execute(update(edit_sets).where(c.id == edit_set).values(state))
    tx.conn.execute(insert(revisions).values(edit_set=edit_set, created_at=tx.now, snapshot=head.id, **state))
    changes = [(REMOVE, pair) for pair in removed] + [(ADD, pair) for pair in added]
    rows = [
        {"edit_set": edit_set, "version": head.version, "position": position, "op": op}
        | {"edit_id": edit_id, "edit_version": edit_version}
        for position, (op, (edit_id, edit_version)) in enumerate(changes)
    ]
    if rows:  # none: a switch was moved, and replicas shall hear of it
        tx.conn.execute(insert(log), rows)
    tx.touched.add(edit_set)
    if changes:
        tx.note(edit_set, before.id, head.id)
    return head.version


def read_delta(conn: Connection, edit_set: str, base: int, *, page_bytes: int = PAGE_BYTES) -> SnapshotDelta[bytes]:
    """The next page after `base`: a prefix of the log of at most `page_bytes` of gists (one version at least).

    Raises:
        InvalidValue: `base` is not a version of this log: the replica holds a state the store never had.
    """
    row = conn.execute(select(edit_sets).where(edit_sets.c.id == edit_set)).one_or_none()
    if row is None:
        raise EditSetNotFound(f"no edit set {edit_set}")
    if base > row.version:
        raise InvalidValue(f"version {base} of {edit_set} is ahead of the store's {row.version}; restart the replica")
    before = _snapshot_at(conn, edit_set, base).id if base else None
    if row.deleted_at is not None:
        return SnapshotDelta(before, snapshot_from(edit_set, row), deleted=True)
    marks = select(revisions.c.version).where(revisions.c.edit_set == edit_set, revisions.c.version < row.oldest)
    ends = [0, *conn.scalars(marks.order_by(revisions.c.version))] if base < row.oldest else []
    with _changes(conn, edit_set, base) as changes:
        fold, end = _fold_page(changes, row, base, ends, page_bytes)
    after = _snapshot_at(conn, edit_set, end)
    added, ages, until = blobs_of(conn, after, fold.added())
    barred = tuple(sorted(switched_off(conn, edit_set)))
    off = "edit_set" if row.disabled_at is not None else None
    if conn.scalar(select(meta.c.value).where(meta.c.key == SERVER_OFF)) is not None:
        off = "server"
    removed = tuple(fold.removed())
    return SnapshotDelta(before, after, added, removed, ages, until, barred=barred, off=off)


def net_changes(conn: Connection, edit_set: str, base: int, target: int) -> tuple[list[EditKey], list[EditKey]]:
    """Edit versions to add and to remove, in order to come from one version to another, forwards or backwards. One
    that is in both left and came back: its gist may have been made anew."""
    fold = Fold()
    with _changes(conn, edit_set, min(base, target), max(base, target)) as changes:
        for row in changes:
            fold.apply((row.edit_id, row.edit_version), is_add=row.op == ADD, num_bytes=row.gist_bytes)
    added, removed = fold.added(), fold.removed()
    return (added, removed) if base <= target else (removed, added)


def edits_at(conn: Connection, edit_set: str, version: int) -> tuple[list[EditKey], int]:
    """Edit versions of a state that are not switched off, and their tokens together."""
    off = switched_off(conn, edit_set)
    keys = [key for key in net_changes(conn, edit_set, 0, version)[0] if key[0] not in off]
    v, total = edit_versions.c, 0
    for part in chunks(keys):
        query = select(func.sum(v.num_tokens)).where(in_pairs(v.edit_id, v.version, part))
        total += int(conn.scalar(query) or 0)
    return keys, total


def switched_off(conn: Connection, edit_set: str) -> set[str]:
    """Edits of the set that are switched off, by an index of these alone: each page for each replica asks."""
    e = edits.c
    return set(conn.scalars(select(e.id).where(e.edit_set == edit_set, e.disabled_at.is_not(None))))


def _snapshot_at(conn: Connection, edit_set: str, version: int) -> SnapshotRef:
    query = select(revisions).where(revisions.c.edit_set == edit_set, revisions.c.version == version)
    return snapshot_from(edit_set, conn.execute(query).one_or_none())


def _changes(conn: Connection, edit_set: str, base: int, end: int | None = None) -> CursorResult[Any]:
    v = edit_versions.c
    until = [] if end is None else [log.c.version <= end]
    return conn.execute(
        select(log.c.version, log.c.op, log.c.edit_id, log.c.edit_version, v.gist_bytes)
        .join_from(log, edit_versions, (v.edit_id == log.c.edit_id) & (v.version == log.c.edit_version))
        .where(log.c.edit_set == edit_set, log.c.version > base, *until)
        .order_by(log.c.version, log.c.position),
        execution_options={"yield_per": 1000},
    )


def _fold_page(
    changes: Iterable[AnyRow], row: AnyRow, base: int, marks: Sequence[int], page_bytes: int
) -> tuple[Fold, int]:
    """Fold whole versions until the next one would not fit; returns the fold and the version it ends at.

    Args:
        row: of the edit set.
        marks: versions before `row.oldest` that a page may end at, ascending; from there on any.
    """
    fold, last = Fold(), base
    for version, rows in groupby(changes, key=lambda change: change.version):
        group = [(each.op == ADD, (each.edit_id, each.edit_version), each.gist_bytes) for each in rows]
        growth = sum(size for is_add, _, size in group if is_add)
        end = version - 1 if version > row.oldest else marks[bisect_left(marks, version) - 1]
        if base < last <= end and end >= row.floor and fold.num_bytes + growth > page_bytes:
            return fold, end
        for is_add, pair, size in group:
            fold.apply(pair, is_add=is_add, num_bytes=size)
        last = version
    return fold, row.version


def blobs_of(
    conn: Connection, snapshot: SnapshotRef, wanted: Sequence[EditKey]
) -> tuple[tuple[bytes, ...], tuple[int, ...], tuple[int | None, ...]]:
    """Gists of the edit versions wanted, where each of those stands in the order of creation, and when it expires.

    Raises:
        NotReady: some are missing, or made by another model than the one that is served.
        GistStorageFailed: the object storage fails.
    """
    v = edit_versions.c
    served = conn.scalar(select(meta.c.value).where(meta.c.key == MODEL))
    found: dict[EditKey, tuple[bytes, int, int | None]] = {}
    columns = (v.edit_id, v.version, v.blob, v.seq, v.fingerprint, v.expires_at, v.data_key)
    for part in chunks(wanted):
        query = select(*columns).where(in_pairs(v.edit_id, v.version, part))
        rows = [row for row in conn.execute(query) if row.blob is not None and served in (None, row.fingerprint)]
        for row, sealed in zip(rows, fetched(conn, [row.blob for row in rows]), strict=True):
            edit = row.edit_id, row.version
            found[edit] = box_of(conn, row.data_key).open("blob", edit, sealed), row.seq, row.expires_at
    if missing := len(wanted) - len(found):
        raise NotReady(
            f"{missing} gists of {snapshot.edit_set} up to version {snapshot.version} are missing, or of another model"
        )
    blobs, ages, until = zip(*(found[edit] for edit in wanted), strict=True) if wanted else ((), (), ())
    return blobs, ages, until


def lost_at(conn: Connection, edit_set: str, version: int) -> int:
    """How many edits of a state have no gist of the model that is served."""
    v = edit_versions.c
    served = conn.scalar(select(meta.c.value).where(meta.c.key == MODEL))
    unusable = v.blob.is_(None) if served is None else v.blob.is_(None) | v.fingerprint.is_distinct_from(served)
    query = (
        select(func.sum(case((log.c.op == ADD, 1), else_=-1)))
        .join_from(log, edit_versions, (v.edit_id == log.c.edit_id) & (v.version == log.c.edit_version))
        .where(log.c.edit_set == edit_set, log.c.version <= version, unusable)
    )
    return int(conn.scalar(query) or 0)
