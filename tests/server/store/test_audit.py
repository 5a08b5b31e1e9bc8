"""The audit log: one event for each applied command, in its transaction, chained; what was tampered with shows."""

from __future__ import annotations

import re
import sqlite3
from dataclasses import replace

import pytest
from incomes_server.auth.principal import Principal
from incomes_server.edits import NewEdit, OnConflict
from incomes_server.edits.audit import AuditEvent, Change, first_break
from incomes_server.store import commands
from incomes_server.store.audit import list_events
from incomes_server.store.core import EditStore
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from incomes_plugin.gist.edit import Compared, FoundConflict
from tests.server.gists import outcome_of

ANNA = commands.Origin(Principal("p", "key_anna", frozenset()), "req-1")


def events(store: EditStore, project: str = "p") -> list[AuditEvent]:
    return store.read(list_events, project, limit=1000, after=None, order="asc")[0]


def send(store: EditStore, *batch: commands.Command) -> list[object]:
    return store.commit([commands.Sent(command, ANNA) for command in batch]).results


def add(*texts: str, request_id: str = "add", project: str = "p") -> commands.AddEdits:
    return commands.AddEdits(project, request_id, "default", tuple(NewEdit(text, (1, 2)) for text in texts))


def test_each_applied_command_is_one_event(store: EditStore) -> None:
    ensure = commands.EnsureEditSet("p", "default")
    (_, _, (edit,)) = send(store, ensure, ensure, add("a"))
    store.write(commands.RecordOutcomes((outcome_of(edit.id, 1),)))
    send(store, commands.ReplaceEdit("p", "r", edit.id, NewEdit("b", (3,))), commands.RetireEdit("p", "x", edit.id))
    send(store, add("a"), commands.RetireEdit("p", "x", edit.id), commands.RetireEdit("p", "y", "edit_none"))
    found = events(store)
    assert [(e.sequence, e.action, e.actor, e.request_id) for e in found] == [
        (1, "ensure_edit_set", "key_anna", "req-1"),
        (2, "add_edits", "key_anna", "req-1"),
        (3, "record_outcomes", "server", None),
        (4, "replace_edit", "key_anna", "req-1"),
        (5, "retire_edit", "key_anna", "req-1"),
    ]
    moved = {change.target: (change.before, change.after) for change in found[4].changes}
    assert moved[edit.id] == ("version 2", "retired")
    assert moved[edit.edit_set][0] == found[2].changes[0].after, "the snapshot before is the one that was made"
    assert moved[edit.edit_set][0] != moved[edit.edit_set][1]
    assert first_break(found) is None
    assert "pump" not in repr(found)


def test_projects_have_logs_of_their_own(store: EditStore) -> None:
    for project in ("p", "q"):
        store.write(commands.EnsureEditSet(project, "default"))
    edits = [store.write(add("a", project=project))[0] for project in ("p", "q")]
    store.write(commands.RecordOutcomes(tuple(outcome_of(edit.id, 1) for edit in edits)))
    for project, edit in zip(("p", "q"), edits, strict=True):
        found = events(store, project)
        assert [e.action for e in found] == ["ensure_edit_set", "add_edits", "record_outcomes"]
        assert {change.target for change in found[2].changes} == {edit.edit_set}
        assert first_break(found) is None


def test_an_edit_that_a_conflict_refused_is_told(store: EditStore) -> None:
    """No edit set moves, and the writer's own event says only that the edit waits."""
    store.write(commands.EnsureEditSet("p", "default"))
    new = NewEdit("b", (1,), on_conflict=OnConflict.REJECT)
    (old,) = store.write(add("a", project="p"))
    (edit,) = store.write(commands.AddEdits("p", "reject", "default", (new,)))
    store.write(commands.RecordOutcomes((outcome_of(old.id, 1),)))
    found = FoundConflict(old.id, 1, "contradiction", 0.9)
    outcome = replace(outcome_of(edit.id, 1), compared=Compared(99, (), (found,)))
    store.write(commands.RecordOutcomes((outcome,)))
    told = events(store)[-1]
    assert (told.action, told.actor) == ("record_outcomes", "server")
    assert told.changes == (Change(edit.id, "version 1 pending", "version 1 conflicted"),)
    assert first_break(events(store)) is None


def test_without_an_event_there_is_no_write(store: EditStore) -> None:
    """Same transaction: a log that cannot be written takes the write back with it."""
    store.write(commands.EnsureEditSet("p", "default"))

    def refuse(conn: object, cursor: object, statement: str, *_: object) -> None:
        if "INSERT INTO audit_events" in statement:
            raise sqlite3.OperationalError("disk is full")

    event.listen(store._writer, "before_cursor_execute", refuse)
    with pytest.raises((OperationalError, sqlite3.OperationalError)):
        store.write(add("a"))
    event.remove(store._writer, "before_cursor_execute", refuse)
    assert len(events(store)) == 1
    assert len(store.write(add("a"))) == 1
    assert [e.action for e in events(store)] == ["ensure_edit_set", "add_edits"]


def test_tampering_shows(store: EditStore) -> None:
    send(store, commands.EnsureEditSet("p", "default"), *(add("a", request_id=str(n)) for n in range(5)))
    found = events(store)
    assert first_break(found) is None
    assert first_break(found[:3]) is None, "an end that is cut off shows only by a hash noted elsewhere"
    for broken, said in (
        (found[:2] + found[3:], "event 3 is missing"),
        (found[1:], "event 1 is missing"),
        ([*found[:2], replace(found[2], actor="key_eve"), *found[3:]], "event 3 .* was changed"),
        ([*found[:2], replace(found[2], created_at=1), *found[3:]], "event 3 .* was changed"),
        ([*found[:2], rehashed(replace(found[2], action="x")), *found[3:]], "event 4 .* does not follow"),
    ):
        problem = first_break(broken)
        assert problem is not None
        assert re.match(said, problem), problem


def rehashed(changed: AuditEvent) -> AuditEvent:
    return replace(changed, hash=changed.computed_hash())
