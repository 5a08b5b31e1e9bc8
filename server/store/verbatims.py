"""Verbatim edit versions in the database: what they are found by, and the vectors that say them.

lease_verbatims ──► a worker makes vectors ──► record_verbatims      one that is killed loses its lease
requeue_verbatims: another model is served      refuse_verbatim: a recall went wrong
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from incomes_server.edits import WAITING, EditStatus, RecallKeys, VerbatimState, VerbatimText
from incomes_server.edits.verbatim import MOST_ATTEMPTS, VERBATIM_TRANSITIONS, VerbatimJob, VerbatimLease
from incomes_server.store import commands
from incomes_server.store.rows import OF_VERSION, AnyRow, Transaction, keys_from
from incomes_server.store.schema import edit_versions, edits, verbatims
from incomes_server.store.vault import Box, ChangedValue, box_of
from sqlalchemy import ColumnElement, Connection, Select, delete, insert, or_, select, update

from incomes_plugin.errors import EditNotFound
from incomes_plugin.gist.edit import EditKey

e, v, b = edits.c, edit_versions.c, verbatims.c
S = VerbatimState

WAITS = "waits for a worker that makes vectors"


def add_verbatims(tx: Transaction, box: Box, new: Sequence[tuple[EditKey, RecallKeys | None]]) -> None:
    """Rows for those of these new versions that are verbatim."""
    rows = [_planned(tx, box, edit, keys) for edit, keys in new if keys is not None]
    if rows:
        tx.conn.execute(insert(verbatims), rows)


def _planned(tx: Transaction, box: Box, edit: EditKey, keys: RecallKeys) -> dict[str, Any]:
    said = box.seal_text(edit, json.dumps(asdict(keys)), "said")
    numbers = dict.fromkeys(("attempts", "vectors", "num_bytes", "tokens", "steps"), 0)
    row = {"edit_id": edit[0], "version": edit[1], "state": VerbatimState.PLANNING, "reason": WAITS}
    return row | {"updated_at": tx.now, "said": said, "data_key": box.key_id} | numbers


def get_verbatim(conn: Connection, project: str, edit_id: str, version: int) -> VerbatimText:
    """What a recall needs. Raises EditNotFound: the project has no such verbatim edit version, or it was erased."""
    query = (
        select(verbatims, v.text, v.data_key.label("text_key"))
        .join_from(verbatims, edit_versions, OF_VERSION)
        .join(edits, e.id == v.edit_id)
        .where(e.project == project, e.erased_at.is_(None), b.edit_id == edit_id, b.version == version)
    )
    row = conn.execute(query).one_or_none()
    if row is None:
        raise EditNotFound(f"no verbatim edit {edit_id!r} version {version}")
    edit, state = (row.edit_id, row.version), VerbatimState(row.state)
    keys = keys_from(conn, edit, row.said, row.data_key)
    text = box_of(conn, row.text_key).open_text(edit, row.text)
    record = None
    if state is VerbatimState.VERIFIED and row.record is not None:
        record = box_of(conn, row.data_key).open("record", edit, row.record) or None
    return VerbatimText(*edit, state, row.reason, keys.title, keys.questions, text, record)


def keys_of(conn: Connection, edit: EditKey) -> RecallKeys | None:
    """What a version is found by; None: it is no verbatim one."""
    row = conn.execute(select(b.said, b.data_key).where(b.edit_id == edit[0], b.version == edit[1])).one_or_none()
    return None if row is None else keys_from(conn, edit, row.said, row.data_key)


def drop_verbatims(conn: Connection, edit_id: str) -> None:
    """Of an erased edit nothing is left."""
    conn.execute(delete(verbatims).where(b.edit_id == edit_id))


def note_recall(tx: Transaction, command: commands.NoteRecall) -> list[EditKey]:
    """Raises EditNotFound."""
    get_verbatim(tx.conn, command.project, command.edit_id, command.version)
    tx.note(command.edit_id, None, f"version {command.version} recalled from {command.source}")
    return [(command.edit_id, command.version)]


def verbatims_wait(conn: Connection, worker: str) -> bool:
    """Whether there is something to lease that no other worker has; one that was restarted has what it had."""
    free = _live().where(b.state.in_([S.PLANNING, S.STALE])).limit(1)
    late = or_(b.leased_until <= int(time.time()), b.worker == worker)
    left = _live().where(b.state == S.OPTIMISING, late).limit(1)
    return any(conn.execute(query).first() is not None for query in (free, left))


def verbatim_origins(conn: Connection) -> list[str]:
    """With what vectors were made, or tried to be made."""
    return list(conn.scalars(select(b.origin).where(b.origin.is_not(None)).distinct()))


def lease_verbatims(command: commands.LeaseVerbatims, tx: Transaction) -> VerbatimLease:
    """Those held on that are still there and in service; then the ones that wait longest. What was tried too often
    fails here: a text may end each worker that takes it."""
    own = (b.state == S.OPTIMISING) & (b.worker == command.worker)
    rows = tx.conn.execute(_live().where(own).with_for_update(of=verbatims)).all()
    held = tuple(_key(row) for row in rows if _key(row) in command.held)
    until = tx.now + command.lease_s
    for edit in held:
        tx.conn.execute(update(verbatims).where(_this(edit)).values(leased_until=until))
    again = own & ~or_(*(_this(edit) for edit in held)) if held else own
    free = or_(b.state.in_([S.PLANNING, S.STALE]), (b.state == S.OPTIMISING) & (b.leased_until <= tx.now), again)
    query = _live().where(free).order_by(v.seq).limit(command.limit).with_for_update(of=verbatims)
    jobs = []
    for row in tx.conn.execute(query).all() if command.limit > 0 else ():
        if row.attempts >= MOST_ATTEMPTS:
            reason = f"no worker finished it in {row.attempts} attempts"
            _set(tx, _key(row), S.FAILED, reason, worker=None, origin=command.origin)
            continue
        values = {"worker": command.worker, "leased_until": until, "attempts": row.attempts + 1}
        _set(tx, _key(row), S.OPTIMISING, "its vectors are being made", **values)
        jobs.append(_job(tx.conn, row))
    return VerbatimLease(held, tuple(jobs))


def record_verbatims(command: commands.RecordVerbatims, tx: Transaction) -> int:
    """Outcomes for versions that the worker has no longer, or that are gone, are left."""
    kept = 0
    for outcome in command.outcomes:
        own = (b.state == S.OPTIMISING) & (b.worker == command.worker)
        row = tx.conn.execute(select(b.data_key).where(_this(outcome.edit), own).with_for_update()).one_or_none()
        if row is None or outcome.state not in VERBATIM_TRANSITIONS[S.OPTIMISING]:
            continue
        record = outcome.record if outcome.state is S.VERIFIED else None
        sealed = None if record is None else box_of(tx.conn, row.data_key).seal("record", outcome.edit, record)
        names = ("vectors", "tokens", "margin", "steps", "origin")
        values: dict[str, Any] = {name: getattr(outcome, name) for name in names}
        values |= {"record": sealed, "num_bytes": len(record or b""), "worker": None, "leased_until": None}
        _set(tx, outcome.edit, outcome.state, outcome.reason, **values)
        kept += 1
    return kept


def refuse_verbatim(command: commands.RefuseVerbatim, tx: Transaction) -> None:
    """Each time counts as an attempt of its workers: what is refused again and again stays text."""
    _set(tx, command.edit, S.STALE, command.reason)


def requeue_verbatims(command: commands.RequeueVerbatims, tx: Transaction) -> int:
    """Another model has another chance to hold what the one before did not."""
    query = select(verbatims).where(b.origin.is_not(None), b.origin != command.origin)
    rows = tx.conn.execute(query.where(b.state.in_([S.VERIFIED, S.TEXT_FALLBACK, S.FAILED])).with_for_update()).all()
    for row in rows:
        changed = _changed(row.origin, command.origin)
        state = S.STALE if row.state == S.VERIFIED else S.PLANNING
        reason = f"its vectors were made with another {changed}" if state is S.STALE else WAITS
        _set(tx, _key(row), state, reason, attempts=0)
    return len(rows)


STEPS: dict[type, Callable[..., Any]] = {
    commands.LeaseVerbatims: lease_verbatims,
    commands.RecordVerbatims: record_verbatims,
    commands.RefuseVerbatim: refuse_verbatim,
    commands.RequeueVerbatims: requeue_verbatims,
}
"""Rules of the commands, for `core.py`."""


def _live() -> Select[Any]:
    """Verbatim versions whose text may be asked for, or will."""
    query = select(verbatims, v.text, v.data_key.label("text_key")).join_from(verbatims, edit_versions, OF_VERSION)
    return query.where(v.status.in_([*WAITING, EditStatus.READY]))


def _set(tx: Transaction, edit: EditKey, state: VerbatimState, reason: str | None, **values: Any) -> None:
    """Bring a version into a state, if it may come there from its own."""
    sources = [source for source, targets in VERBATIM_TRANSITIONS.items() if state in targets]
    changed = {"state": state, "reason": reason, "updated_at": tx.now, **values}
    tx.conn.execute(update(verbatims).where(_this(edit), b.state.in_(sources)).values(changed))


def _job(conn: Connection, row: AnyRow) -> VerbatimJob:
    """With the record to begin at: its own, or the newest of a former version."""
    edit = _key(row)
    text = box_of(conn, row.text_key).open_text(edit, row.text)
    columns = (v.text, v.data_key.label("text_key"), verbatims)
    former = select(*columns).join_from(verbatims, edit_versions, OF_VERSION)
    former = former.where(b.edit_id == edit[0], b.version <= edit[1], b.record.is_not(None))
    found = conn.execute(former.order_by(b.version.desc()).limit(1)).one_or_none()
    if found is None:
        return VerbatimJob(*edit, text)
    try:
        record = box_of(conn, found.data_key).open("record", _key(found), found.record)
        said = box_of(conn, found.text_key).open_text(_key(found), found.text)
    except ChangedValue:
        return VerbatimJob(*edit, text)
    return VerbatimJob(*edit, text, record or None, said)


def _changed(old: str, new: str) -> str:
    """Which parts of what vectors were made with are others now."""
    before, now = json.loads(old), json.loads(new)
    return ", ".join(name for name in sorted(now) if before.get(name) != now[name]) or "form"


def _key(row: AnyRow) -> EditKey:
    return row.edit_id, row.version


def _this(edit: EditKey) -> ColumnElement[bool]:
    return (b.edit_id == edit[0]) & (b.version == edit[1])
