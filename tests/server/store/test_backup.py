"""A backup of a database that is being written has one state of it, whole; what is restored is what was backed up."""

import stat
import threading
from pathlib import Path

import pytest
from incomes_server.edits import NewEdit
from incomes_server.store import commands
from incomes_server.store.backup import backup, restore
from incomes_server.store.check import problems
from incomes_server.store.core import EditStore
from incomes_server.store.edits import get_edits
from incomes_server.store.schema import metadata
from sqlalchemy import select

from incomes_plugin.errors import InvalidValue, NotReady
from tests.server.gists import outcome_of

BEFORE = Path(__file__).with_name("before_alembic.sql")


def add(store, name):
    store.write(commands.EnsureEditSet("p", "default"))
    (edit,) = store.write(commands.AddEdits("p", name, "default", (NewEdit(name, (1, 2)),)))
    store.write(commands.RecordOutcomes((outcome_of(edit.id, 1),)))
    return edit.id


def content(store):
    def rows(conn):
        return {table.name: [tuple(row) for row in conn.execute(select(table))] for table in metadata.sorted_tables}

    return store.read(rows)


def filled(url):
    store = EditStore(url)
    for number in range(5):
        edit = add(store, f"edit {number}")
    store.write(commands.MoveLabel("p", "m", "default", "production", "3"))
    store.write(commands.RetireEdit("p", "r", edit))
    return store


def test_what_is_restored_is_what_was_backed_up_and_goes_on(database_url, tmp_path):
    store = filled(database_url)
    file, other = tmp_path / "backup.db", f"sqlite:///{tmp_path}/restored.db"
    report = backup(database_url, file)
    assert (report.edit_sets, report.edits, report.num_bytes) == (1, 4, file.stat().st_size)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert {path.name for path in tmp_path.iterdir()} >= {"backup.db"}
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("backup.db.")]
    before = content(store)
    add(store, "after the backup")
    assert restore(file, other).edits == 4
    again = EditStore(other)
    assert content(again) == before
    assert add(again, "one more")
    assert again.read(problems) == []
    for each in (store, again):
        each.close()


def test_a_backup_while_edits_are_written_has_all_that_were_acknowledged_before(database_url, tmp_path):
    store, written, stop = EditStore(database_url), [], threading.Event()
    add(store, "first")

    def write():
        while not stop.is_set():
            written.append(add(store, f"edit {len(written)}"))

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for number in range(5):
            known = list(written)
            backup(database_url, tmp_path / f"{number}.db")
            copy = EditStore(f"sqlite:///{tmp_path}/{number}.db")
            assert copy.read(problems) == []
            assert len(copy.read(get_edits, "p", known)) == len(known)
            copy.close()
    finally:
        stop.set()
        thread.join()
    assert len(written) > 5
    store.close()


def test_what_is_refused(database_url, tmp_path):
    store = filled(database_url)
    file = tmp_path / "backup.db"
    backup(database_url, file)
    with pytest.raises(InvalidValue, match=r"backup.db exists"):
        backup(database_url, file)
    with pytest.raises(InvalidValue, match="its folder does not"):
        backup(database_url, tmp_path / "nowhere" / "b.db")
    with pytest.raises(InvalidValue, match="no edit store"):
        backup(f"sqlite:///{tmp_path}/nothing.db", tmp_path / "b.db")
    assert not (tmp_path / "nothing.db").exists()
    with pytest.raises(InvalidValue, match="has edit sets; restore into a new database"):
        restore(file, database_url)
    with pytest.raises(InvalidValue, match="no file"):
        restore(tmp_path / "missing.db", f"sqlite:///{tmp_path}/new.db")
    (tmp_path / "text.db").write_text("no database " * 1000)
    with pytest.raises(NotReady, match="no backup of an edit store"):
        restore(tmp_path / "text.db", f"sqlite:///{tmp_path}/new.db")
    store.close()


def test_between_sqlite_and_postgresql_both_ways(sqlite_url, postgres, tmp_path):
    with postgres.database() as other:
        store = filled(sqlite_url)
        before = content(store)
        backup(sqlite_url, tmp_path / "there.db")
        assert restore(tmp_path / "there.db", other).edits == 4
        backup(other, tmp_path / "back.db")
        restore(tmp_path / "back.db", f"sqlite:///{tmp_path}/again.db")
        again, there = EditStore(f"sqlite:///{tmp_path}/again.db"), EditStore(other)
        assert {table: sorted(map(repr, rows)) for table, rows in content(again).items()} == {
            table: sorted(map(repr, rows)) for table, rows in before.items()
        }
        assert add(there, "numbers go on")
        assert there.read(problems) == []
        for each in (store, again, there):
            each.close()
