"""Labels in the database: a row says where each points, another one where it was by each move that is remembered. And
what callers refer to."""

from __future__ import annotations

from collections.abc import Collection

from incomes_server.edits.label import HEAD, Label, check_label
from incomes_server.edits.lifecycle import check_version
from incomes_server.store.commands import DeleteLabel, MoveLabel
from incomes_server.store.counts import LabelUse, use_at
from incomes_server.store.edit_sets import SetHead, find_edit_set
from incomes_server.store.log import ADD, blobs_of, lost_at, net_changes
from incomes_server.store.rows import AnyRow, Transaction, snapshot_from
from incomes_server.store.schema import edit_sets, edit_versions, label_heads, label_moves, log, revisions
from sqlalchemy import Connection, case, delete, func, insert, select

from incomes_plugin.errors import LabelNotFound, QuotaExceeded, SnapshotNotFound, SnapshotRetired
from incomes_plugin.gist.edit import EditKey
from incomes_plugin.pool.snapshot import SnapshotDelta, SnapshotRef, label_key, set_of

MOST_LABELS = 64
"""Of an edit set: each is followed by every replica."""

FEW_GISTS = 256
"""So many are sent without looking whether another state has them."""

h, m, r, s, v = label_heads.c, label_moves.c, revisions.c, edit_sets.c, edit_versions.c


def heads(conn: Connection, only: Collection[str] | None = None) -> dict[str, SetHead]:
    """Newest move of every label by its key, deleted ones too; or of those in `only`."""
    query = select(h.edit_set, h.name, h.move, h.version)
    if only is not None:
        query = query.where(h.edit_set.in_({set_of(key) for key in only}))
    rows = conn.execute(query)
    found = {label_key(row.edit_set, row.name): SetHead(row.move, row.version is None) for row in rows}
    return found if only is None else {key: head for key, head in found.items() if key in only}


def moves_of(conn: Connection, project: str) -> dict[str, int]:
    """Newest move of every label of the project, by its key."""
    sets = set(conn.scalars(select(s.id).where(s.project == project, s.deleted_at.is_(None))))
    found = heads(conn).items()
    return {key: head.version for key, head in found if not head.deleted and set_of(key) in sets}


def get_label(conn: Connection, project: str, edit_set: str, name: str) -> Label:
    """Raises EditSetNotFound, LabelNotFound."""
    return label_of(conn, find_edit_set(conn, project, edit_set).id, name)


def list_labels(conn: Connection, project: str, edit_set: str) -> list[Label]:
    """By name. Raises EditSetNotFound."""
    return labels_of(conn, find_edit_set(conn, project, edit_set).id)


def label_of(conn: Connection, edit_set: str, name: str, *, param: str = "label") -> Label:
    """Where a label points now. Raises LabelNotFound."""
    row = _newest(conn, edit_set, name)
    if row is None or row.version is None:
        raise LabelNotFound(f"edit set {edit_set} has no label {name!r}", param=param)
    return load_label(conn, edit_set, name, row.move)


def labels_of(conn: Connection, edit_set: str) -> list[Label]:
    """All that are not deleted, by name."""
    query = select(h.name, h.move).where(h.edit_set == edit_set, h.version.is_not(None)).order_by(h.name)
    return [load_label(conn, edit_set, row.name, row.move) for row in conn.execute(query).all()]


def load_label(conn: Connection, edit_set: str, name: str, move: int) -> Label:
    """The label as it was after one of its moves; as it is now where that is forgotten. One that was deleted points
    where it did before."""
    query = select(label_moves).where(m.edit_set == edit_set, m.name == name, m.move.in_([move - 1, move]))
    rows = {row.move: row for row in conn.execute(query)}
    if move not in rows:
        return load_label(conn, edit_set, name, _newest(conn, edit_set, name).move)  # type: ignore[union-attr]
    now, before = rows[move], rows.get(move - 1)
    previous = None if before is None else _state(conn, edit_set, before.version)
    snapshot = previous if now.version is None else _state(conn, edit_set, now.version)
    return Label(edit_set, name, move, snapshot or SnapshotRef.empty(edit_set), now.moved_at, previous)


def read_delta(conn: Connection, key: str, move: int, set_version: int) -> SnapshotDelta[bytes]:
    """What takes a replica to where a label points, all at once.

    Args:
        move: of the label that the replica has; 0: none yet.
        set_version: of the edit set that the replica has. The delta starts from that state or the label's former one:
            from the nearer, unless many gists would have to be sent that the other has.

    Raises:
        NotReady: gists of the label's state are missing, or another model made them.
    """
    edit_set, _, name = key.partition("@")
    newest = conn.execute(select(label_heads).where(h.edit_set == edit_set, h.name == name)).one()
    former = conn.scalar(select(m.version).where(m.edit_set == edit_set, m.name == name, m.move == move))
    if newest.version is None:
        return SnapshotDelta(None, SnapshotRef.empty(edit_set), deleted=True, label=name, move=newest.move)
    target = _state(conn, edit_set, newest.version) or SnapshotRef.empty(edit_set)
    places = [set_version] if former is None else [set_version, former]
    states = [state for version in places if (state := _state(conn, edit_set, version)) is not None]
    states.sort(key=lambda state: abs(state.version - target.version))
    base, added, removed = _fewest_added(conn, target, states or [SnapshotRef.empty(edit_set)])
    blobs, ages, until = blobs_of(conn, target, added)
    start = base.id if base.num_edits else None
    return SnapshotDelta(start, target, blobs, tuple(removed), ages, until, label=name, move=newest.move)


def _fewest_added(
    conn: Connection, target: SnapshotRef, bases: Collection[SnapshotRef]
) -> tuple[SnapshotRef, list[EditKey], list[EditKey]]:
    """A state to start from, with what is to be added and removed. All gists of a move travel in one answer."""
    ways = []
    for base in bases:
        ways.append((base, *net_changes(conn, target.edit_set, base.version, target.version)))
        if len(ways[-1][1]) <= FEW_GISTS:
            break
    return min(ways, key=lambda way: len(way[1]))


def use_of_move(conn: Connection, project: str, edit_set: str, name: str, to: str) -> tuple[LabelUse, LabelUse]:
    """What replicas would hold for the label beside the newest state, and what they hold for it now. Nothing where
    another label points there.

    Raises:
        EditSetNotFound, SnapshotNotFound, LabelNotFound: what is named is not there.
    """
    found = find_edit_set(conn, project, edit_set)
    target = refer(conn, found, to)
    at = {label.name: label.snapshot.version for label in labels_of(conn, found.id)}
    old = at.pop(name, found.version)
    free = {found.version, *at.values()}
    new, now = (
        LabelUse() if version in free else use_at(conn, found.id, version, _tokens_at(conn, found.id, version))
        for version in (target.version, old)
    )
    return new, now


def move_label(tx: Transaction, command: MoveLabel) -> list[EditKey]:
    """Point it there, made if needed.

    Raises:
        EditSetNotFound, SnapshotNotFound, LabelNotFound, InvalidValue: what is named is not there, or cannot be.
        EtagMismatch: the label has moved since the caller read it.
        QuotaExceeded: the set has as many labels as it may.
        SnapshotRetired: replicas could not build the state; they would go on serving the label's former one.
    """
    found = find_edit_set(tx.conn, command.project, command.edit_set, lock=True)
    name = check_label(command.name)
    newest = _newest(tx.conn, found.id, name)
    check_version(f"label {name}", 0 if newest is None else newest.move, command.if_match)
    version = refer(tx.conn, found, command.to).version
    if newest is not None and newest.version == version:
        tx.replayed = True
        return [(label_key(found.id, name), newest.move)]
    if (newest is None or newest.version is None) and len(labels_of(tx.conn, found.id)) >= MOST_LABELS:
        raise QuotaExceeded(
            f"edit set {found.id} has {MOST_LABELS} labels, the most there may be; delete one", param="label"
        )
    if lost := lost_at(tx.conn, found.id, version):
        raise SnapshotRetired(
            f"{lost} gists of version {version} are missing or of another model; point the label at a later state",
            param="to",
        )
    return [_append(tx, found.id, name, newest, version)]


def delete_label(tx: Transaction, command: DeleteLabel) -> list[EditKey]:
    """Raises EditSetNotFound, LabelNotFound, EtagMismatch."""
    found = find_edit_set(tx.conn, command.project, command.edit_set, lock=True)
    label = label_of(tx.conn, found.id, command.name)
    check_version(f"label {label.name}", label.move, command.if_match)
    return [_append(tx, found.id, label.name, _newest(tx.conn, found.id, label.name), None)]


def refer(conn: Connection, edit_set: AnyRow, to: str, *, param: str = "to") -> SnapshotRef:
    """The state that is meant by `head`, a version, a snapshot's id or a label.

    Raises:
        SnapshotNotFound, LabelNotFound: none is.
    """
    if to == HEAD:
        return snapshot_from(edit_set.id, edit_set)
    empty = SnapshotRef.empty(edit_set.id)
    if to in ("0", empty.id):
        return empty
    if not to.isdecimal() and not to.startswith("snap_"):
        return label_of(conn, edit_set.id, to, param=param).snapshot
    named = r.version == int(to[:18]) if to.isdecimal() else r.snapshot == to
    row = conn.execute(
        select(revisions)
        .where(r.edit_set == edit_set.id, r.version >= edit_set.oldest, named)
        .order_by(r.version.desc())
    ).first()
    if row is None:
        raise SnapshotNotFound(
            f"edit set {edit_set.id} has no snapshot {to!r}; GET /v1/snapshots?edit_set= lists those that it has",
            param=param,
        )
    return snapshot_from(edit_set.id, row)


def delete_labels(tx: Transaction, edit_set: str) -> None:
    """Those of an edit set whose project is erased."""
    for label in labels_of(tx.conn, edit_set):
        _append(tx, edit_set, label.name, _newest(tx.conn, edit_set, label.name), None)


def _append(tx: Transaction, edit_set: str, name: str, newest: AnyRow | None, version: int | None) -> EditKey:
    key, move = label_key(edit_set, name), 1 if newest is None else newest.move + 1
    before, after = (_state(tx.conn, edit_set, v) for v in (None if newest is None else newest.version, version))
    num_tokens = 0 if version is None else _tokens_at(tx.conn, edit_set, version)
    row = {"edit_set": edit_set, "name": name, "move": move, "version": version, "num_tokens": num_tokens}
    row["moved_at"] = tx.now
    tx.conn.execute(insert(label_moves).values(row))
    tx.conn.execute(delete(label_heads).where(h.edit_set == edit_set, h.name == name))
    tx.conn.execute(insert(label_heads).values(row))
    tx.touched.add(key)
    tx.note(key, None if before is None else before.id, None if after is None else after.id)
    return key, move


def _tokens_at(conn: Connection, edit_set: str, version: int) -> int:
    """Of all edits of a state: what joined up to then, without what left."""
    signed = case((log.c.op == ADD, v.num_tokens), else_=-v.num_tokens)
    query = (
        select(func.sum(signed))
        .join_from(log, edit_versions, (v.edit_id == log.c.edit_id) & (v.version == log.c.edit_version))
        .where(log.c.edit_set == edit_set, log.c.version <= version)
    )
    return int(conn.scalar(query) or 0)


def _newest(conn: Connection, edit_set: str, name: str) -> AnyRow | None:
    return conn.execute(select(label_heads).where(h.edit_set == edit_set, h.name == name)).one_or_none()


def _state(conn: Connection, edit_set: str, version: int | None) -> SnapshotRef | None:
    """None: the label was deleted then, or the state is forgotten."""
    if not version:
        return None if version is None else SnapshotRef.empty(edit_set)
    remembered = select(s.oldest).where(s.id == edit_set).scalar_subquery()
    query = select(revisions).where(r.edit_set == edit_set, r.version == version, r.version >= remembered)
    row = conn.execute(query).one_or_none()
    return None if row is None else snapshot_from(edit_set, row)
