"""Queries for given edit versions find them by an index: to search the table takes a write's time at 100,000 edits."""

from contextlib import contextmanager
from dataclasses import replace

from incomes_server.edits import NewEdit
from incomes_server.store import commands
from incomes_server.store.compaction import gists_of_no_state
from incomes_server.store.core import EditStore
from incomes_server.store.labels import use_of_move
from incomes_server.store.log import edits_at, read_delta
from incomes_server.store.schema import edit_versions, edits
from sqlalchemy import event, insert, update

from incomes_plugin.gist.edit import Compared
from tests.server.gists import outcome_of

TABLES = ("edit_versions", "edits", "log", "revisions")


@contextmanager
def noted(store):
    """What is asked of the database inside the block: statements with their values."""
    sent = []
    for engine in (store._writer, store._reader):
        event.listen(engine, "before_cursor_execute", lambda _c, _k, sql, values, *_: sent.append((sql, values)))
    yield sent


def plan_of(store, sql, values):
    """The steps in which the database would do it, in its own words."""
    with store._reader.connect() as conn:
        explain = "EXPLAIN QUERY PLAN" if conn.dialect.name == "sqlite" else "EXPLAIN"
        return [row[-1] for row in conn.exec_driver_sql(f"{explain} {sql}", values)]


def many_edits(store, number):
    """Edits in one set, each with a version that is in the snapshot."""
    edit_set = store.write(commands.EnsureEditSet("p", "large")).id
    with store._writer.begin() as conn:
        rows = [
            {"id": f"edit_{i}", "edit_set": edit_set, "project": "p", "created_at": 1, "head_version": 1}
            | {"active_version": 1}
            for i in range(number)
        ]
        conn.execute(insert(edits), rows)
        version = {"version": 1, "status": "ready", "created_at": 1, "updated_at": 1, "set_version": 1, "num_tokens": 1}
        version |= {"gist_bytes": 1, "metadata": "{}", "text": "a", "token_ids": b"1", "blob": b"1"}
        conn.execute(insert(edit_versions), [version | {"edit_id": row["id"]} for row in rows])
        conn.execute(update(edits).where(edits.c.id.in_(["edit_7", "edit_5"])).values(disabled_at=1))
    with store._writer.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.exec_driver_sql("ANALYZE")
    return edit_set


def test_what_is_switched_off_is_found_without_a_look_at_all_edits(store):
    """Each page for each replica asks it."""
    edit_set = many_edits(store, 5_000)
    with noted(store) as sent:
        assert store.read(read_delta, edit_set, 0).barred == ("edit_5", "edit_7")
        assert store.read(edits_at, edit_set, 0) == ([], 0)
    asked = [(sql, values) for sql, values in sent if "disabled_at IS NOT NULL" in sql]
    assert len(asked) == 2
    for sql, values in asked:
        assert any("edits_disabled" in step for step in plan_of(store, sql, values)), plan_of(store, sql, values)


def test_what_waits_beside_a_snapshot_is_found_without_a_look_at_the_edits_of_others(store):
    """Each outcome asks it, in its transaction."""
    many_edits(store, 5_000)
    store.write(commands.EnsureEditSet("p", "small"))
    (edit,) = store.write(commands.AddEdits("p", "a", "small", (NewEdit("new", (1,)),)))
    with noted(store) as sent:
        outcome = outcome_of(edit.id, 1)
        compared = Compared(0, (), ())
        assert store.write(commands.RecordOutcomes((replace(outcome, compared=compared),))) == []
    asked = [(sql, values) for sql, values in sent if "active_version != edits.head_version" in sql]
    assert len(asked) == 1
    for sql, values in asked:
        assert any("edits_unsettled" in step for step in plan_of(store, sql, values)), plan_of(store, sql, values)


def test_gists_of_versions_that_are_over_are_found_by_their_time(store):
    many_edits(store, 5_000)
    with noted(store) as sent:
        assert store.read(gists_of_no_state, 10) == []
    ((sql, values),) = [(sql, values) for sql, values in sent if "updated_at <=" in sql]
    assert any("edit_versions_over" in step for step in plan_of(store, sql, values)), plan_of(store, sql, values)


def test_no_table_is_searched_for_pairs(sqlite_url):
    store = EditStore(sqlite_url)
    with noted(store) as sent:
        write_and_read(store)
    pairs = [(sql, values) for sql, values in sent if "IN (VALUES" in sql]
    assert len({sql.split()[0] for sql, _ in pairs}) == 3, "reads, updates and deletes"
    for sql, values in pairs:
        steps = plan_of(store, sql, values)
        assert not [step for step in steps if step.startswith(tuple(f"SCAN {table}" for table in TABLES))], sql
    store.close()


def write_and_read(store):
    store.write(commands.EnsureEditSet("p", "default"))
    added = store.write(commands.AddEdits("p", "add", "default", tuple(NewEdit(f"text {i}", (1,)) for i in range(3))))
    store.write(commands.MarkCompressing(tuple((edit.id, 1) for edit in added)))
    for edit in added:
        store.write(commands.RecordOutcomes((outcome_of(edit.id, 1),)))
    store.read(use_of_move, "p", "default", "staging", "1")
    store.write(commands.MoveLabel("p", "move", "default", "staging", "1"))
    store.write(commands.ReplaceEdit("p", "replace", added[0].id, NewEdit("new", (1,))))
    store.write(commands.RecordOutcomes((outcome_of(added[0].id, 2),)))
    store.write(commands.RetireEdit("p", "retire", added[1].id))
    store.read(read_delta, added[0].edit_set, 0)
    store.write(commands.DeleteLabel("p", "delete", "default", "staging"))
    assert store.write(commands.Compact(added[0].edit_set, 10**9))
