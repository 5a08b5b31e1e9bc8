"""The audit log in SQL: events are written at the end of the transaction of the writes that they tell of."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace

from incomes_server.edits import IdPrefix, new_id
from incomes_server.edits.audit import FIRST_HASH, AuditEvent, Change
from incomes_server.store.commands import Command, Origin
from incomes_server.store.pages import page_of
from incomes_server.store.rows import AnyRow, Transaction, chunks
from incomes_server.store.schema import audit_events, audit_heads, edit_sets, edits
from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import IntegrityError

a, h = audit_events.c, audit_heads.c


def events_of(tx: Transaction, command: Command, origin: Origin) -> list[AuditEvent]:
    """What one applied command is remembered by: one event in the command's project. The server's own commands have no
    project: one event for each project whose edit sets they moved, or whose edits they refused or replaced."""
    project = getattr(command, "project", None)
    if project is not None:
        return [] if tx.replayed else [_event(tx, command, origin, project, tx.notes.values())]
    moved: dict[str, list[Change]] = defaultdict(list)
    for prefix, table in ((IdPrefix.EDIT_SET, edit_sets), (IdPrefix.EDIT, edits)):
        for part in chunks([target for target in tx.notes if target.startswith(prefix)]):
            owners = select(table.c.id, table.c.project).where(table.c.id.in_(part))
            for target, owner in tx.conn.execute(owners):
                moved[owner].append(tx.notes[target])
    return [_event(tx, command, origin, owner, changes) for owner, changes in moved.items()]


def write_events(tx: Transaction, events: Sequence[AuditEvent]) -> None:
    """Number and chain the events of one transaction behind those of their projects. The heads are the last rows that a
    transaction locks, in one order: two servers on one database cannot block each other here."""
    by_project: dict[str, list[AuditEvent]] = defaultdict(list)
    for event in events:
        by_project[event.project].append(event)
    for project in sorted(by_project):
        sequence, previous = _lock_head(tx.conn, project)
        rows = []
        for event in by_project[project]:
            sequence += 1
            event = replace(event, sequence=sequence, previous_hash=previous)
            previous = event.computed_hash()
            rows.append(_row(replace(event, hash=previous)))
        tx.conn.execute(insert(audit_events), rows)
        tx.conn.execute(update(audit_heads).where(h.project == project).values(sequence=sequence, hash=previous))


def list_events(
    conn: Connection, project: str, *, limit: int, after: str | None, order: str
) -> tuple[list[AuditEvent], bool]:
    """A page of the project's events, and whether more follow."""
    cursor = select(a.sequence).where(a.project == project, a.id == after)
    query = select(audit_events).where(a.project == project)
    rows, has_more = page_of(conn, query, a.sequence, cursor, limit=limit, after=after, order=order)
    return [_from_row(row) for row in rows], has_more


def _lock_head(conn: Connection, project: str) -> tuple[int, str]:
    """Number and hash of the project's last event; another server that writes the first one at the same time waits."""
    query = select(h.sequence, h.hash).where(h.project == project).with_for_update()
    head = conn.execute(query).one_or_none()
    if head is None:
        with suppress(IntegrityError), conn.begin_nested():
            conn.execute(insert(audit_heads).values(project=project, sequence=0, hash=FIRST_HASH))
        head = conn.execute(query).one()
    return head.sequence, head.hash


def _event(tx: Transaction, command: Command, origin: Origin, project: str, changes: Iterable[Change]) -> AuditEvent:
    action = re.sub(r"(?<!^)(?=[A-Z])", "_", type(command).__name__).lower()
    event_id = new_id(IdPrefix.AUDIT)
    return AuditEvent(
        event_id, project, 0, tx.now, tx.actor, action, origin.request_id, tuple(changes), previous_hash=""
    )


def _row(event: AuditEvent) -> dict[str, object]:
    changes = json.dumps([[c.target, c.before, c.after] for c in event.changes])
    return {name: getattr(event, name) for name in audit_events.c.keys()} | {"changes": changes}  # noqa: SIM118


def _from_row(row: AnyRow) -> AuditEvent:
    changes = tuple(Change(*change) for change in json.loads(row.changes))
    return AuditEvent(**{**row._asdict(), "changes": changes})
