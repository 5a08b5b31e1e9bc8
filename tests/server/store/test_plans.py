"""Queries for given edit versions find them by an index: to search the table takes a write's time at 100,000 edits."""

import pytest
from incomes_server.edits import NewEdit
from incomes_server.store import commands
from incomes_server.store.core import EditStore
from incomes_server.store.labels import use_of_move
from incomes_server.store.log import read_delta
from sqlalchemy import event

from tests.server.gists import outcome_of

TABLES = ("edit_versions", "edits", "log", "revisions")


@pytest.fixture
def store(tmp_path):
    store = EditStore(f"sqlite:///{tmp_path}/edits.db")
    yield store
    store.close()


def test_no_table_is_searched_for_pairs(store):
    sent = []
    for engine in (store._writer, store._reader):
        event.listen(engine, "before_cursor_execute", lambda _c, _k, sql, values, *_: sent.append((sql, values)))
    store.write(commands.EnsureEditSet("p", "default"))
    edits = store.write(commands.AddEdits("p", "add", "default", tuple(NewEdit(f"text {i}", (1,)) for i in range(3))))
    store.write(commands.MarkCompressing(tuple((edit.id, 1) for edit in edits)))
    for edit in edits:
        store.write(commands.RecordOutcomes((outcome_of(edit.id, 1),)))
    store.read(use_of_move, "p", "default", "staging", "1")
    store.write(commands.MoveLabel("p", "move", "default", "staging", "1"))
    store.write(commands.ReplaceEdit("p", "replace", edits[0].id, NewEdit("new", (1,))))
    store.write(commands.RecordOutcomes((outcome_of(edits[0].id, 2),)))
    store.write(commands.RetireEdit("p", "retire", edits[1].id))
    store.read(read_delta, edits[0].edit_set, 0)
    store.write(commands.DeleteLabel("p", "delete", "default", "staging"))
    assert store.write(commands.Compact(edits[0].edit_set, 10**9))
    pairs = [(sql, values) for sql, values in sent if "IN (VALUES" in sql]
    assert len({sql.split()[0] for sql, _ in pairs}) == 3, "reads, updates and deletes"
    with store._reader.connect() as conn:
        for sql, values in pairs:
            steps = [row[3] for row in conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", values)]
            assert not [step for step in steps if step.startswith(tuple(f"SCAN {table}" for table in TABLES))], sql
