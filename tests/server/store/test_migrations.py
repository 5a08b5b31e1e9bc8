"""Databases of former versions come up, go down and come up again with everything in them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from incomes_server.edits import EditStatus, NewEdit, RecallKeys
from incomes_server.store import commands
from incomes_server.store.check import problems
from incomes_server.store.core import EditStore, replica_names
from incomes_server.store.counts import count
from incomes_server.store.database import open_writer
from incomes_server.store.edit_sets import list_edit_sets
from incomes_server.store.edits import get_edits
from incomes_server.store.log import read_delta
from incomes_server.store.migrations import BASELINE, config_for
from incomes_server.store.outcomes import pending_jobs
from incomes_server.store.schema import metadata
from sqlalchemy import Connection, inspect

from incomes_plugin.errors import NotReady
from tests.postgres import Cluster
from tests.server.gists import outcome_of

BEFORE = Path(__file__).with_name("before_alembic.sql")
"""Written by the last version without Alembic: edits of each status, two projects, a deleted set, a replica."""
TABLES = sorted(metadata.tables)
BASELINE_TABLES = ("edit_sets", "edit_versions", "edits", "log", "meta", "replicas", "requests", "revisions")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "edits.db"
    with sqlite3.connect(path) as conn:
        conn.executescript(BEFORE.read_text())
    conn.close()
    return path


def content(conn: Connection) -> dict[str, list[tuple]]:
    return {
        name: [tuple(row) for row in conn.exec_driver_sql(f"SELECT * FROM {name} ORDER BY 1, 2")] for name in TABLES
    }


def layout(conn: Connection) -> dict[str, str]:
    """Tables and indexes by name, in the words that made them; PostgreSQL keeps columns instead of those of tables."""
    if conn.dialect.name == "postgresql":
        columns = "table_name || '.' || column_name, data_type || is_nullable || coalesce(column_default, '')"
        named = f"SELECT {columns} FROM information_schema.columns WHERE table_schema = 'public'"
        query = f"{named} UNION SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"
        return {name: sql for name, sql in conn.exec_driver_sql(query) if not name.startswith("alembic_version")}
    query = "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name != 'alembic_version'"
    return {name: " ".join(sql.split()) for name, sql in conn.exec_driver_sql(query)}


def differences(conn: Connection) -> list[object]:
    """Between the tables of the database and those of `schema.py`."""
    return compare_metadata(MigrationContext.configure(conn), metadata)


@contextmanager
def opened(url: str) -> Iterator[Connection]:
    """A connection of a writer, in a transaction that stays."""
    engine = open_writer(url)
    try:
        with engine.begin() as conn:
            yield conn
    finally:
        engine.dispose()


def rows_of(conn: Connection, columns: dict[str, list[str]]) -> dict[str, list[tuple]]:
    return {
        table: [tuple(row) for row in conn.exec_driver_sql(f"SELECT {', '.join(names)} FROM {table} ORDER BY 1, 2")]
        for table, names in columns.items()
    }


def columns_of_the_baseline(conn: Connection) -> dict[str, list[str]]:
    """What later revisions added goes on the way down: their tables and columns are made again without content."""
    command.downgrade(config_for(conn), BASELINE)
    found = {table: [column["name"] for column in inspect(conn).get_columns(table)] for table in BASELINE_TABLES}
    command.upgrade(config_for(conn), "head")
    return found


def test_a_new_database_has_the_tables_of_the_schema(database_url: str) -> None:
    with opened(database_url) as conn:
        assert differences(conn) == []


def test_an_empty_database_comes_up_too(postgres: Cluster) -> None:
    """That of the other tests is a copy of one that has all tables."""
    with postgres.database(empty=True) as url, opened(url) as conn:
        assert differences(conn) == []


def test_up_down_and_up_again_with_rows_of_each_kind(database_url: str) -> None:
    store = EditStore(database_url)
    store.write(commands.EnsureEditSet("p", "default"))
    store.write(commands.RequeueStale("mf_a"))
    new = tuple(NewEdit(text, (1, 2), external_id=text, metadata={"k": "v"}) for text in "abc")
    edits = store.write(commands.AddEdits("p", "add", "default", new))
    store.write(commands.RecordOutcomes(tuple(outcome_of(edit.id, 1, fingerprint="mf_a") for edit in edits[:2])))
    store.write(commands.RetireEdit("p", "retire", edits[0].id))
    store.keep_replica("replica-0", serving=True)
    store.close()
    with opened(database_url) as conn:
        newest, every = layout(conn), {table: "SELECT * FROM " + table for table in BASELINE_TABLES}
        before = {table: conn.exec_driver_sql(query).mappings().all() for table, query in every.items()}
        columns = columns_of_the_baseline(conn)
        assert layout(conn) == newest
        rows = rows_of(conn, columns)
        rows["meta"] = [row for row in rows["meta"] if "scrub" not in row]  # asked for by the way up
        for table, names in columns.items():
            assert sorted(rows[table]) == sorted(tuple(row[name] for name in names) for row in before[table]) != []
    store = EditStore(database_url)
    assert store.read(problems) == []
    assert [edit.status for edit in store.read(get_edits, "p", [edit.id for edit in edits])] == [
        EditStatus.RETIRED, EditStatus.READY, EditStatus.PENDING
    ]  # fmt: skip
    store.close()


def test_a_database_of_the_former_version_is_served_as_it_was(old: Path) -> None:
    store = EditStore(f"sqlite:///{old}")
    assert store.read(problems) == []
    assert store.read(count).edits == {"failed": 1, "pending": 1, "ready": 4, "retired": 2, "superseded": 1}
    assert [job.token_ids for job in store.read(pending_jobs, 10)] == [(20, 21)]
    (item,), more = store.read(list_edit_sets, "acme", limit=10, after=None, order="asc")
    assert (item.name, more, store.read(replica_names)) == ("default", False, ["replica-0"])
    assert len(store.read(read_delta, item.id, 0).added) == 3
    store.close()


def test_up_down_and_up_again_keeps_every_row(old: Path) -> None:
    with sqlite3.connect(old) as plain:
        before = {name: " ".join(sql.split()) for name, sql in plain.execute(
            "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")}  # fmt: skip
    plain.close()
    engine = open_writer(f"sqlite:///{old}")
    with engine.begin() as conn:
        rows, newest = content(conn), layout(conn)
        assert differences(conn) == []
        command.downgrade(config_for(conn), BASELINE)
        assert layout(conn) == before != newest
        command.upgrade(config_for(conn), "head")
        assert (content(conn), layout(conn)) == (rows, newest)
        assert sum(map(len, rows.values())) > 30
    engine.dispose()


def test_verbatim_edits_do_not_become_facts_on_the_way_down(database_url: str) -> None:
    store = EditStore(database_url)
    store.write(commands.EnsureEditSet("p", "default"))
    new = NewEdit("Either party may cancel.", (1, 2), found_by=RecallKeys("Cancellation"))
    (edit,) = store.write(commands.AddEdits("p", "add", "default", (new,)))
    store.close()
    with pytest.raises(NotReady, match="export them, then erase them"), opened(database_url) as conn:
        command.downgrade(config_for(conn), BASELINE)
    store = EditStore(database_url)
    store.write(commands.EraseEdit("p", "erase", edit.id))
    store.close()
    with opened(database_url) as conn:
        command.downgrade(config_for(conn), BASELINE)
        command.upgrade(config_for(conn), "head")


def test_down_to_nothing_and_up_again(database_url: str) -> None:
    with opened(database_url) as conn:
        newest = layout(conn)
        command.downgrade(config_for(conn), "base")
        assert layout(conn) == {}
        command.upgrade(config_for(conn), "head")
        assert layout(conn) == newest


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            "UPDATE alembic_version SET version_num = '9999'",
            "revision 9999, this version of incomes knows up to [0-9]",
        ),
        ("UPDATE meta SET value = '99' WHERE key = 'schema_version'", "schema 99, this version of incomes knows 2"),
    ],
)
def test_a_newer_database_is_refused(database_url: str, change: str, said: str) -> None:
    engine = open_writer(database_url)
    with engine.begin() as conn:
        conn.exec_driver_sql(change)
    engine.dispose()
    with pytest.raises(NotReady, match=said):
        EditStore(database_url)


def test_a_database_before_the_oldest_known_is_refused(old: Path) -> None:
    with sqlite3.connect(old) as conn:
        conn.execute("UPDATE meta SET value = '1' WHERE key = 'schema_version'")
    conn.close()
    with pytest.raises(NotReady, match="schema 1, this version of incomes knows 2"):
        EditStore(f"sqlite:///{old}")
