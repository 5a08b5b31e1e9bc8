"""Forgets history that nothing needs: states before a version, gists and superseded texts that are in no later state,
moves of labels.

compaction_targets ──version a set──► Compact, many small transactions ──► the log has each edit of that version once
    (from settings, labels, replicas)                                        and behind it all changes since

A step moves `edit_sets.oldest` forward. Up to there the log keeps the additions that are still in force, and a few
revisions, the marks, with the digests of what is left: a replica that starts reads pages between them. States before
`oldest` are gone: no label can point there, and a replica that is still at one starts from nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from incomes_server.edits import EditStatus
from incomes_server.store.labels import labels_of
from incomes_server.store.log import ADD, REMOVE
from incomes_server.store.objects import let_go
from incomes_server.store.rows import OF_VERSION, AnyRow, Transaction, chunks, in_pairs
from incomes_server.store.schema import (
    edit_conflicts,
    edit_sets,
    edit_versions,
    edits,
    label_heads,
    label_moves,
    log,
    revisions,
    verbatims,
)
from sqlalchemy import Connection, bindparam, delete, func, select, update

from incomes_plugin.gist.edit import EditKey
from incomes_plugin.pool.snapshot import EMPTY_DIGEST, add_to_digest, subtract_digests

STEP_ROWS = 256
"""Rows of the log that one transaction folds, except where a single version has more."""
MARK_EDITS = 128
"""Edits from mark to mark, at least."""

s, r, v, g = edit_sets.c, revisions.c, edit_versions.c, log.c
h, m, c = label_heads.c, label_moves.c, edit_conflicts.c

_OVER = (EditStatus.RETIRED, EditStatus.SUPERSEDED)


def compaction_targets(conn: Connection, before: int) -> dict[str, int]:
    """The version of each edit set that was its newest one at a time, where there is something older to forget."""
    query = (
        select(r.edit_set, func.max(r.version).label("version"))
        .join_from(revisions, edit_sets, (s.id == r.edit_set) & (r.version > s.oldest))
        .where(r.created_at <= before)
        .group_by(r.edit_set)
    )
    return {row.edit_set: row.version for row in conn.execute(query)}


def compact(tx: Transaction, edit_set: str, up_to: int, step_rows: int = STEP_ROWS) -> bool:
    """One step towards a version; whether there may be more to do. Labels are looked at in the same transaction."""
    row = tx.conn.execute(select(edit_sets).where(s.id == edit_set).with_for_update()).one()
    labelled = [version for label in labels_of(tx.conn, edit_set) if (version := label.snapshot.version)]
    end = _end_of_step(tx.conn, row, min([up_to, row.version, *labelled]), step_rows)
    if end is None:
        return False
    gone = _drop_cancelled(tx.conn, edit_set, row.oldest, end)
    _renew_marks(tx.conn, edit_set, row.oldest, end, gone)
    tx.conn.execute(
        update(edit_sets).where(s.id == edit_set).values(oldest=end, floor=0 if row.floor <= end else row.floor)
    )
    _free(tx.conn, list(gone))
    return True


def gists_of_no_state(conn: Connection, before: int) -> list[EditKey]:
    """Some of the versions that were over before a time and still have gists, though no state that is remembered has
    them: they never joined."""
    over = v.status.in_(bindparam("over", _OVER, expanding=True, literal_execute=True))  # the words of the index
    named = select(g.version).where(g.edit_id == v.edit_id, g.edit_version == v.version)
    query = select(v.edit_id, v.version).where(over, v.blob.is_not(None), v.updated_at <= before, ~named.exists())
    return [(row.edit_id, row.version) for row in conn.execute(query.limit(STEP_ROWS))]


def free(tx: Transaction, keys: Sequence[EditKey]) -> None:
    """Drop what no state has any more of these."""
    _free(tx.conn, keys)


def forget_moves(tx: Transaction, before: int) -> None:
    """Moves that a label left behind before a time, but the newest one and the one before it."""
    here = (h.edit_set == m.edit_set) & (h.name == m.name)
    query = select(m.edit_set, m.name, h.move, func.max(m.move).label("at")).join_from(label_moves, label_heads, here)
    query = query.where(m.moved_at <= before).group_by(m.edit_set, m.name, h.move).having(func.count() > 1)
    for row in tx.conn.execute(query).all():
        old = m.move < min(row.at, row.move - 1)
        tx.conn.execute(delete(label_moves).where(m.edit_set == row.edit_set, m.name == row.name, old))


def _end_of_step(conn: Connection, row: AnyRow, up_to: int, step_rows: int) -> int | None:
    end, rows = None, 0
    sizes = (
        select(g.version, func.count())
        .where(g.edit_set == row.id, g.version > row.oldest, g.version <= up_to)
        .group_by(g.version)
        .order_by(g.version)
        .limit(step_rows)
    )
    for version, size in conn.execute(sizes):
        if end is not None and rows + size > step_rows:
            break
        end, rows = version, rows + size
    return end


def _drop_cancelled(conn: Connection, edit_set: str, oldest: int, end: int) -> dict[EditKey, int]:
    """Delete the removals of a step and what they remove.

    Returns:
        by edit version, the version up to `oldest` from which on it was there; 0 for one that joined later.
    """
    query = select(g.edit_id, g.edit_version).where(
        g.edit_set == edit_set, g.version > oldest, g.version <= end, g.op == REMOVE
    )
    removed: list[EditKey] = [(row.edit_id, row.edit_version) for row in conn.execute(query.distinct())]
    rows: dict[EditKey, list[AnyRow]] = defaultdict(list)
    for part in chunks(removed):
        found = select(log).where(g.edit_set == edit_set, g.version <= end, in_pairs(g.edit_id, g.edit_version, part))
        for row in conn.execute(found.order_by(g.version, g.position)):
            rows[row.edit_id, row.edit_version].append(row)
    dead = [
        (row.version, row.position) for each in rows.values() for row in (each[:-1] if each[-1].op == ADD else each)
    ]
    for places in chunks(dead):
        conn.execute(delete(log).where(g.edit_set == edit_set, in_pairs(g.version, g.position, places)))
    return {key: each[0].version if each[0].version <= oldest else 0 for key, each in rows.items()}


def _renew_marks(conn: Connection, edit_set: str, oldest: int, end: int, gone: Mapping[EditKey, int]) -> None:
    """Revisions before `end`: those between go, the marks lose the edits that are gone, and marks that are close to the
    one before go too."""
    inside = (r.edit_set == edit_set) & (r.version < end)
    conn.execute(delete(revisions).where(inside, r.version > oldest))
    leaving = sorted((since, key) for key, since in gone.items() if since)
    left, lost, last = 0, EMPTY_DIGEST, 0
    kept: list[dict[str, object]] = []
    close: list[int] = []
    for mark in conn.execute(select(revisions).where(inside).order_by(r.version)).all():
        while left < len(leaving) and leaving[left][0] <= mark.version:
            lost = add_to_digest(lost, *leaving[left][1])
            left += 1
        num_edits = mark.num_edits - left
        if num_edits - last < MARK_EDITS:
            close.append(mark.version)
            continue
        last = num_edits
        if left:
            digest = subtract_digests(mark.digest, lost)
            kept.append({"b_version": mark.version, "b_digest": digest, "b_edits": num_edits})
    for versions in chunks(close):
        conn.execute(delete(revisions).where(inside, r.version.in_(versions)))
    this = (r.edit_set == edit_set) & (r.version == bindparam("b_version"))
    changed = {"digest": bindparam("b_digest"), "num_edits": bindparam("b_edits"), "snapshot": ""}
    if kept:
        conn.execute(update(revisions).where(this).values(changed), kept)


def _free(conn: Connection, keys: Sequence[EditKey]) -> None:
    """Drop gists of edit versions that no state has any more, and former versions of edits with their texts. What an
    edit says last stays with it, also where another edit took its place."""
    for part in chunks(keys):
        still = select(g.edit_id, g.edit_version).where(in_pairs(g.edit_id, g.edit_version, part))
        kept = {tuple(row) for row in conn.execute(still)}
        free = in_pairs(v.edit_id, v.version, [key for key in part if key not in kept])
        newest = v.version == select(edits.c.head_version).where(edits.c.id == v.edit_id).scalar_subquery()
        let_go(conn, free, v.status == EditStatus.SUPERSEDED, ~newest)
        former = select(v.edit_id).where(OF_VERSION, free, v.status == EditStatus.SUPERSEDED, ~newest)
        conn.execute(delete(verbatims).where(former.exists()))
        gone = conn.execute(
            delete(edit_versions)
            .where(free, v.status == EditStatus.SUPERSEDED, ~newest)
            .returning(v.edit_id, v.version)
        )
        _forget_conflicts(conn, [(row.edit_id, row.version) for row in gone])
        over = v.status.in_([*_OVER, EditStatus.ERASED])
        let_go(conn, free, over)
        conn.execute(update(edit_versions).where(free, over).values(blob=None, gist_bytes=0))


def _forget_conflicts(conn: Connection, gone: Sequence[EditKey]) -> None:
    """Those that versions which are deleted were in, on either side."""
    for part in chunks(gone):
        for edit_id, version in ((c.edit_id, c.version), (c.other_id, c.other_version)):
            conn.execute(delete(edit_conflicts).where(in_pairs(edit_id, version, part)))
