"""Open the database: SQLite (WAL, every commit synced) or PostgreSQL; bring it to the newest tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from incomes_server.store.migrations import migrate
from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DataError, DBAPIError, OperationalError, SQLAlchemyError

from incomes_plugin.errors import IncomesError, InvalidValue, NotReady

_CONNECT_TIMEOUT_S = 10
_PASSING = ("08", "40", "57P")
"""Classes of PostgreSQL's errors that a second attempt gets over: no connection, deadlock, server ends or starts."""

_WRITERS = 0x1C036
"""PostgreSQL's number of the lock that the transactions of writers take; the next one to that of the migrations."""

_PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA busy_timeout=10000",
    "PRAGMA foreign_keys=ON",
    "PRAGMA secure_delete=ON",  # what is erased or encrypted again does not stay in free pages
    "PRAGMA cache_size=-16384",  # KiB
)

_OF_READERS = (*_PRAGMAS, "PRAGMA query_only=ON", "PRAGMA cache_size=-8192")
"""There are five of them (`reads.py`)."""


def open_writer(url: str) -> Engine:
    """Engine whose transactions write, with all tables as this version knows them.

    Raises:
        NotReady: the database does not answer, or belongs to another version of the product.
    """
    path = make_url(url).database
    if url.startswith("sqlite") and path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch(mode=0o600)  # edit texts are nobody else's business; the -wal and -shm files take it over
    engine = _open(url, begin="BEGIN IMMEDIATE")
    with ExitStack() as undo:
        undo.callback(engine.dispose)
        try:
            with engine.begin() as conn:
                migrate(conn)
        except SQLAlchemyError as error:
            raise failure_of(error) from error
        undo.pop_all()
    return engine


def open_reader(url: str) -> Engine:
    """Engine whose transactions each see one state of the database, never wait for a writer and cannot write."""
    engine = _open(url, begin="BEGIN", pragmas=_OF_READERS)
    return engine.execution_options(postgresql_readonly=True)


def will_pass(error: SQLAlchemyError) -> bool:
    """True when the transaction may be tried again: PostgreSQL broke it off, it was not at fault itself."""
    if not isinstance(error, DBAPIError) or not hasattr(error.orig, "sqlstate"):
        return False
    state: str | None = getattr(error.orig, "sqlstate", None)
    no_server = state is None and isinstance(error, OperationalError)
    return error.connection_invalidated or no_server or str(state).startswith(_PASSING)


def failure_of(error: SQLAlchemyError) -> IncomesError:
    """What a caller is told of a database that fails: the database's own words, without statements and values."""
    if isinstance(error, DataError):
        return InvalidValue(
            "the database cannot store a value of this request: leave out U+0000 and numbers of 64 bits"
        )
    cause = error.orig if isinstance(error, DBAPIError) else None
    if any("disk is full" in str(earlier) for earlier in _chain(cause)):
        return NotReady("the edit database cannot grow: the disk is full; make room on it, then send the write again")
    return NotReady(f"the edit database failed: {type(cause or error).__name__}: {cause or type(error).__name__}")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what led to it: a full disk ends the transaction, and undoing a part of it then fails."""
    while error is not None:
        yield error
        error = error.__context__


def _wait_for_turn(conn: Connection) -> None:
    """One writer at a time, as SQLite has it: what a command has read stays so until its transaction ends."""
    conn.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITERS})")


def _open(url: str, *, begin: str, pragmas: Sequence[str] = _PRAGMAS) -> Engine:
    if not url.startswith("sqlite"):
        level = "READ COMMITTED" if begin == "BEGIN IMMEDIATE" else "REPEATABLE READ"
        patience = {} if "connect_timeout" in make_url(url).query else {"connect_timeout": _CONNECT_TIMEOUT_S}
        engine = create_engine(url, isolation_level=level, pool_pre_ping=True, connect_args=patience)
        if begin == "BEGIN IMMEDIATE":
            event.listen(engine, "begin", _wait_for_turn)
        return engine
    engine = create_engine(url)

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver's own rules
        for pragma in pragmas:
            connection.execute(pragma)

    @event.listens_for(engine, "begin")
    def begin_transaction(conn: Connection) -> None:
        conn.exec_driver_sql(begin)

    return engine
