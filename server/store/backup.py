"""Backup and restore of an edit store. A backup is an edit store itself: one SQLite file, whatever database it is of.

running database ──one state of it──► FILE.part ──checked, synced──► FILE      writers are not held up
FILE ──copied, brought up to this version──► a database without edit sets, SQLite or PostgreSQL, in one transaction
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from incomes_server.store.check import problems
from incomes_server.store.database import failure_of, open_reader, open_writer
from incomes_server.store.erasure import erase_again, erased_ids, scrub
from incomes_server.store.migrations import require_newest
from incomes_server.store.objects import GistStorage, fetched, with_storage
from incomes_server.store.rows import Transaction
from incomes_server.store.schema import edit_sets, edits, loose_objects, metadata
from sqlalchemy import Connection, Engine, delete, func, insert, make_url, select, text
from sqlalchemy.exc import SQLAlchemyError

from incomes_plugin.errors import InvalidValue, NotReady

_ROWS = 500


@dataclass(frozen=True)
class BackupReport:
    """What a backup, or a restored store, holds."""

    edit_sets: int
    edits: int
    num_bytes: int


def backup(url: str, path: Path, gist_storage: str | None = None) -> BackupReport:
    """Write one state of a database that may be in use, its gists included.

    Args:
        gist_storage: URL of the object storage that has them, if one has.

    Raises:
        InvalidValue: the file is there already, or the place for it is not.
        NotReady: the database fails or is of another version, or what was written is not whole.
    """
    if path.exists() or not path.parent.is_dir():
        raise InvalidValue(f"{path} exists, or its folder does not; name a new file in a folder that is there")
    part = path.with_name(path.name + ".part")
    try:
        part.unlink(missing_ok=True)
        part.touch(mode=0o600)
        _copy_out(url, part, gist_storage)
        report = _checked(f"sqlite:///{part}")
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.rename(path)
    except SQLAlchemyError as error:
        raise failure_of(error) from error
    except sqlite3.Error as error:
        raise NotReady(f"the backup failed: {error}") from error
    finally:
        for suffix in ("", "-wal", "-shm"):
            part.with_name(part.name + suffix).unlink(missing_ok=True)
    return report


def restore(path: Path, url: str, erased_in: str | None = None) -> BackupReport:
    """Fill a database that has no edit set yet; the server must not run on it.

    Args:
        erased_in: URL of a database that was in use after the backup: what was erased there is erased here too.

    Raises:
        InvalidValue: there is no such file, or the database has edit sets.
        NotReady: the file is no whole backup, a later version wrote it, or the database fails.
    """
    if not path.is_file():
        raise InvalidValue(f"there is no file {path}")
    with tempfile.TemporaryDirectory(prefix="incomes-restore") as folder:
        copy = f"sqlite:///{folder}/backup.db"
        try:
            _copy_file(path, Path(folder) / "backup.db")
            open_writer(copy).dispose()  # brings a backup of a former version up
            _checked(copy)
            _copy_rows(copy, url, into=open_writer(url))
            if erased_in is not None:
                _erase_again(erased_in, url)
            return _checked(url)
        except SQLAlchemyError as error:
            raise failure_of(error) from error
        except sqlite3.Error as error:
            raise NotReady(f"{path} is no backup of an edit store: {error}") from error


def _erase_again(used: str, restored: str) -> None:
    """Without master keys: what is encrypted is dropped without being read."""
    reader, writer = open_reader(used), open_writer(restored)
    try:
        with reader.begin() as conn:
            require_newest(conn)
            tombstones = erased_ids(conn)
        with writer.begin() as conn:
            erase_again(Transaction(conn, int(time.time())), tombstones)
        scrub(writer)
    finally:
        writer.dispose()
        reader.dispose()


def _copy_out(url: str, part: Path, gist_storage: str | None) -> None:
    database = make_url(url).database
    if not url.startswith("sqlite"):
        _copy_rows(url, f"sqlite:///{part}", into=open_writer(f"sqlite:///{part}"), gist_storage=gist_storage)
    elif database and Path(database).is_file():
        _copy_file(Path(database), part)
    else:
        raise InvalidValue(f"there is no edit store {database}; see --edit-store")


def _copy_file(source: Path, target: Path) -> None:
    """SQLite's online backup, in one step: one state, beside any writer."""
    name = f"{source.resolve().as_uri()}?mode=ro"
    with closing(sqlite3.connect(name, uri=True)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)


def _copy_rows(source: str, target: str, *, into: Engine, gist_storage: str | None = None) -> None:
    """All rows of one state, in one transaction of the target, which is empty. Gists come into the rows."""
    storage = GistStorage(gist_storage, source) if gist_storage else None
    reader = with_storage(open_reader(source), storage)
    try:
        with nullcontext() if storage is None else storage.all_kept(), reader.begin() as old, into.begin() as new:
            require_newest(old)
            if new.scalar(select(func.count()).select_from(edit_sets)):
                raise InvalidValue(f"{make_url(target).render_as_string()} has edit sets; restore into a new database")
            for table in reversed(metadata.sorted_tables):
                new.execute(delete(table))
            for table in metadata.sorted_tables:
                if table is loose_objects:
                    continue  # of the storage of this database; a copy has its gists itself
                with old.execute(select(table), execution_options={"yield_per": _ROWS}) as rows:
                    for part in rows.mappings().partitions(_ROWS):
                        new.execute(insert(table), _with_gists(old, [dict(row) for row in part]))
            _go_on_counting(new)
    finally:
        reader.dispose()
        into.dispose()
        if storage is not None:
            storage.close()


def _with_gists(conn: Connection, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of any table; those with references get the objects in their place."""
    having = [row for row in rows if row.get("blob")]
    for row, blob in zip(having, fetched(conn, [row["blob"] for row in having]), strict=True):
        row["blob"] = blob
    return rows


def _go_on_counting(conn: Connection) -> None:
    """PostgreSQL numbers rows by sequences, which know nothing of rows that came with their numbers."""
    for table in metadata.sorted_tables if conn.dialect.name == "postgresql" else ():
        column = table.autoincrement_column
        if column is not None:
            last = select(func.coalesce(func.max(column), 0) + 1).scalar_subquery()
            sequence = func.pg_get_serial_sequence(table.name, column.name)
            conn.execute(select(func.setval(sequence, last, text("false"))))


def _checked(url: str) -> BackupReport:
    reader = open_reader(url)
    try:
        with reader.begin() as conn:
            require_newest(conn)
            if found := problems(conn):
                raise NotReady(f"{make_url(url).render_as_string()} is not whole: {_shortly(found)}")
            sets = conn.scalar(select(func.count()).select_from(edit_sets).where(edit_sets.c.deleted_at.is_(None)))
            number = conn.scalar(select(func.count()).select_from(edits).where(edits.c.retired_at.is_(None)))
    finally:
        reader.dispose()
    path = Path(make_url(url).database or "") if url.startswith("sqlite") else None
    return BackupReport(sets or 0, number or 0, path.stat().st_size if path else 0)


def _shortly(found: Sequence[str]) -> str:
    return found[0] + (f", and {len(found) - 1} more" if len(found) > 1 else "")
