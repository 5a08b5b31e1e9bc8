"""Conflicts of new edits with others of their set: what the engine found, checked once more, and what follows from it.

gists with what they were compared with ──► not with everything? the worker compares again
                                        └─► of two edits in conflict the one written later decides: `OnConflict`
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from incomes_server.edits import ConflictWith, Edit, EditStatus, OnConflict
from incomes_server.store.compared import Arrival, Beside, Uncompared
from incomes_server.store.rows import Transaction, chunks, decode_ids, encode_ids, in_pairs
from incomes_server.store.schema import edit_conflicts, edit_versions, edits
from incomes_server.store.superseded import active_of, leave
from sqlalchemy import ColumnElement, Connection, delete, insert, select, update

from incomes_plugin.gist.edit import EditKey, FoundConflict

e, v, c = edits.c, edit_versions.c, edit_conflicts.c


@dataclass(frozen=True)
class _Ready:
    """A version that a new one may be in conflict with."""

    seq: int
    on_conflict: OnConflict
    is_active: bool = False


def judge(tx: Transaction, edit_set: str, arrivals: Sequence[Arrival]) -> tuple[set[EditKey], list[Uncompared]]:
    """Decide about arrivals of one set, in the order in which they were written.

    Returns:
        those that may join, and those to be compared again first; the others are refused or superseded.
    """
    arrivals = sorted(arrivals, key=lambda arrival: arrival.seq)
    beside = Beside(tx.conn, edit_set)
    again: list[Uncompared] = []
    for number, arrival in enumerate(arrivals):
        missing = beside.missing(arrival, arrivals[:number])
        if missing is not None or again:  # the order in which edits were written is kept
            again.append(missing or Uncompared(arrival.edit, edit_set, ()))
    arrivals = arrivals[: len(arrivals) - len(again)]
    found = _both_ways(arrivals)
    others = _ready(tx, edit_set, {key for each in found.values() for key in each})
    kept: set[EditKey] = set()
    for arrival in arrivals:
        conflicts = [f for key, f in found[arrival.edit].items() if key in others and key[0] != arrival.edit[0]]
        _remember(tx, arrival, conflicts, partial=beside.is_partial)
        if _may_join(tx, arrival, conflicts, others):
            kept.add(arrival.edit)
            others[arrival.edit] = _Ready(arrival.seq, arrival.on_conflict)
    return kept, again


def with_conflicts(conn: Connection, found: Sequence[Edit]) -> list[Edit]:
    """The same edits, with the conflicts that they are in."""
    by_key: dict[EditKey, list[ConflictWith]] = defaultdict(list)
    for part in chunks([(edit.id, edit.version) for edit in found if edit.status in _SHOWN]):
        for own, other in (_SIDES, _SIDES[::-1]):
            query = (
                select(own[0], own[1], other[0], c.kind, c.score)
                .join_from(edit_conflicts, edit_versions, (v.edit_id == other[0]) & (v.version == other[1]))
                .where(in_pairs(own[0], own[1], part), v.status == EditStatus.READY)
                .order_by(v.seq)
            )
            for edit_id, version, other_id, kind, score in conn.execute(query):
                by_key[edit_id, version].append(ConflictWith(other_id, kind, score))
    return [replace(edit, conflicts=tuple(by_key[edit.id, edit.version])) for edit in found]


def is_in_conflict() -> ColumnElement[bool]:
    """Of a row of `edit_versions`: it is in conflict with a version that is ready."""
    other_version = edit_versions.alias()
    o = other_version.c
    found = []
    for own, other in (_SIDES, _SIDES[::-1]):
        query = select(c.kind).join_from(
            edit_conflicts, other_version, (o.edit_id == other[0]) & (o.version == other[1])
        )
        query = query.where(own[0] == v.edit_id, own[1] == v.version, o.status == EditStatus.READY)
        found.append(query.correlate(edit_versions).exists())
    return v.status.in_(_SHOWN) & (found[0] | found[1])


_SHOWN = (EditStatus.READY, EditStatus.CONFLICTED)
_SIDES = ((c.edit_id, c.version), (c.other_id, c.other_version))


def _both_ways(arrivals: Sequence[Arrival]) -> dict[EditKey, dict[EditKey, FoundConflict]]:
    """By arrival what it conflicts with; of two arrivals each with the other, whichever of them was compared."""
    found: dict[EditKey, dict[EditKey, FoundConflict]] = {arrival.edit: {} for arrival in arrivals}
    for arrival in arrivals:
        for each in arrival.compared.found if arrival.compared else ():
            found[arrival.edit][each.edit] = each
            if each.edit in found:
                found[each.edit][arrival.edit] = FoundConflict(*arrival.edit, each.kind, each.score)
    return found


def _ready(tx: Transaction, edit_set: str, keys: Collection[EditKey]) -> dict[EditKey, _Ready]:
    """Those of the set that are ready now, and not about to expire."""
    found: dict[EditKey, _Ready] = {}
    for part in chunks(list(keys)):
        query = (
            select(v.edit_id, v.version, v.seq, v.on_conflict, e.active_version)
            .join_from(edit_versions, edits, e.id == v.edit_id)
            .where(in_pairs(v.edit_id, v.version, part), e.edit_set == edit_set, v.status == EditStatus.READY)
            .where(v.expires_at.is_(None) | (v.expires_at > tx.now))
        )
        for row in tx.conn.execute(query):
            policy = OnConflict(row.on_conflict or OnConflict.FLAG)
            found[row.edit_id, row.version] = _Ready(row.seq, policy, row.active_version == row.version)
    return found


def _may_join(
    tx: Transaction, arrival: Arrival, conflicts: Sequence[FoundConflict], others: Mapping[EditKey, _Ready]
) -> bool:
    """Whether it joins; if not, that is written down. The one written later decides."""
    earlier = [each for each in conflicts if others[each.edit].seq < arrival.seq]
    if arrival.compared is None and arrival.on_conflict in (OnConflict.REJECT, OnConflict.SUPERSEDE):
        return _refuse(tx, arrival.edit, "conflicts could not be checked; send it again, or on_conflict flag")
    if earlier and arrival.on_conflict is OnConflict.REJECT:
        return _refuse(tx, arrival.edit, _reason(earlier))
    if earlier and arrival.on_conflict is OnConflict.SUPERSEDE:
        _take_place(tx, arrival.edit[0], [each.edit_id for each in earlier])
    for each in conflicts:
        later = others[each.edit]
        if each in earlier or later.on_conflict is not OnConflict.SUPERSEDE:
            continue
        if not later.is_active:
            _take_place(tx, each.edit_id, [arrival.edit[0]])
        elif not active_of(tx.conn, [arrival.edit[0]]):
            leave(tx, {arrival.edit[0]: each.edit_id}, None)
            return False
    return True


def _remember(tx: Transaction, arrival: Arrival, conflicts: Sequence[FoundConflict], *, partial: bool) -> None:
    edit_id, version = arrival.edit
    if arrival.on_conflict is OnConflict.KEEP_BOTH:
        return
    check = "unavailable" if arrival.compared is None else "partial" if partial else "done"
    this = (v.edit_id == edit_id) & (v.version == version)
    tx.conn.execute(update(edit_versions).where(this).values(conflict_check=check))
    tx.conn.execute(delete(edit_conflicts).where(c.edit_id == edit_id, c.version == version))
    rows = [
        {"edit_id": edit_id, "version": version, "other_id": each.edit_id, "other_version": each.version}
        | {"kind": each.kind, "score": each.score}
        for each in conflicts
    ]
    if rows:
        tx.conn.execute(insert(edit_conflicts), rows)


def _refuse(tx: Transaction, edit: EditKey, reason: str) -> bool:
    this = (v.edit_id == edit[0]) & (v.version == edit[1])
    values = {"status": EditStatus.CONFLICTED, "status_reason": reason, "updated_at": tx.now}
    tx.conn.execute(update(edit_versions).where(this).values(values))
    tx.changed.add(edit[0])
    tx.note(edit[0], f"version {edit[1]} pending", f"version {edit[1]} {EditStatus.CONFLICTED}")
    return False


def _reason(conflicts: Sequence[FoundConflict]) -> str:
    says = {"contradiction": "contradicts", "duplicate": "says the same as"}
    named = ", ".join(f"{says[each.kind]} {each.edit_id}" for each in conflicts)
    return f"{named}; replace or retire what is there, or send on_conflict supersede or keep_both"


def _take_place(tx: Transaction, edit_id: str, names: Sequence[str]) -> None:
    """Have these edits leave in the step in which the edit joins. One that joined before joins anew with its next
    version; what it superseded then does not leave again. Those of them that wait to take its place, which was of an
    older version, do so no more."""
    row = tx.conn.execute(select(e.supersedes, e.joined_at).where(e.id == edit_id)).one()
    former = decode_ids(row.supersedes) if row.joined_at is None else ()
    merged = encode_ids(list(dict.fromkeys([*former, *names])))
    tx.conn.execute(update(edits).where(e.id == edit_id).values(supersedes=merged, joined_at=None))
    for part in chunks(names):
        waiting = select(e.id, e.supersedes).where(e.id.in_(part), e.joined_at.is_(None), e.supersedes.is_not(None))
        for row in tx.conn.execute(waiting).all():
            if edit_id in (ids := decode_ids(row.supersedes)):
                left = encode_ids([each for each in ids if each != edit_id])
                tx.conn.execute(update(edits).where(e.id == row.id).values(supersedes=left))
