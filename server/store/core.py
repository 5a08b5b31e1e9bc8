"""`EditStore`: the durable store, without Ray. All commands that are waiting are applied in one transaction, synced to
disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

from incomes_server.edits import CompressionJob, Delta, Edit, EditSet, EditVersion, WaitingText
from incomes_server.store import check, commands, edit_sets, edits, outcomes
from incomes_server.store.counts import ProjectUse, StoreCounts
from incomes_server.store.database import open_reader, open_writer
from incomes_server.store.log import PAGE_BYTES, read_delta
from incomes_server.store.requests import find_result, keep_result
from incomes_server.store.rows import Transaction, load_edit_set, load_edits
from incomes_server.store.schema import edit_sets as edit_sets_table
from incomes_server.store.schema import edit_versions, meta, replicas, requests
from sqlalchemy import Connection, delete, func, insert, select
from sqlalchemy.exc import IntegrityError

from incomes_plugin.errors import IncomesError

KEEP_REQUESTS_S = 7 * 86_400.0
_TOUCHED = "touched_at"


@dataclass(frozen=True)
class SetHead:
    """What is kept in memory of every edit set, to answer polls without SQL."""

    version: int
    deleted: bool


@dataclass(frozen=True)
class Committed:
    """Results of one transaction, one per command: a value, or the error that command alone met.

    Attributes:
        changed: edits whose status moved.
        heads: edit sets that moved, as they are now.
    """

    results: list[Any]
    changed: frozenset[str]
    heads: dict[str, SetHead]


class EditStore:
    """One database. Reads may run beside a write; writes must not run beside each other on SQLite."""

    def __init__(self, url: str, *, clock: Callable[[], float] = time.time) -> None:
        """Open or create the database. Raises NotReady when a newer version of the product wrote it."""
        self._clock = clock
        self._writer = open_writer(url)
        self._reader = open_reader(url)

    def close(self) -> None:
        """Give the connections back."""
        self._reader.dispose()
        self._writer.dispose()

    def commit(self, batch: Sequence[commands.Command]) -> Committed:
        """Apply all commands in one durable transaction; a command that fails leaves no trace and stops no other."""
        results: list[Any] = []
        with self._writer.begin() as conn:
            tx = Transaction(conn, int(self._clock()))
            for command in batch:
                try:
                    results.append(_apply_alone(command, tx))
                except IncomesError as error:
                    results.append(error)
            heads = _heads(conn, tx.touched)
        return Committed(results, frozenset(tx.changed), heads)

    def write(self, command: commands.Command) -> Any:
        """One command in its own transaction; raises its error."""
        (result,) = self.commit([command]).results
        if isinstance(result, IncomesError):
            raise result
        return result

    def get_edit_set(self, project: str, edit_set: str) -> EditSet:
        """Raises EditSetNotFound."""
        return self._read(edit_sets.get_edit_set, project, edit_set)

    def list_edit_sets(self, project: str, **page: Any) -> tuple[list[EditSet], bool]:
        """See `StoreClient.list_edit_sets`."""
        return self._read(edit_sets.list_edit_sets, project, **page)

    def get_edit(self, project: str, edit_id: str, version: int | None = None) -> Edit:
        """Raises EditNotFound."""
        return self._read(edits.get_edit, project, edit_id, version)

    def get_edits(self, project: str, edit_ids: Sequence[str]) -> list[Edit]:
        """Raises EditNotFound."""
        return self._read(edits.get_edits, project, edit_ids)

    def list_edits(self, project: str, **page: Any) -> tuple[list[Edit], bool]:
        """See `StoreClient.list_edits`."""
        return self._read(edits.list_edits, project, **page)

    def pending_jobs(self, limit: int) -> list[CompressionJob]:
        """The oldest edit versions that wait for compression."""
        return self._read(outcomes.pending_jobs, limit)

    def use_of_projects(self) -> dict[str, ProjectUse]:
        """What each project's edits take, or will take when they are compressed."""
        return self._read(outcomes.use_of_projects)

    def waiting_texts(self, after: int, limit: int) -> list[WaitingText]:
        """The oldest texts behind `after` that wait for compression."""
        return self._read(outcomes.waiting_texts, after, limit)

    def delta(self, edit_set: str, base: int, *, page_bytes: int = PAGE_BYTES) -> Delta:
        """The next page of changes after `base`."""
        return self._read(read_delta, edit_set, base, page_bytes=page_bytes)

    def heads(self) -> dict[str, SetHead]:
        """Every edit set, deleted ones too."""
        return self._read(_heads, None)

    def news(self, live: Collection[str]) -> dict[str, SetHead]:
        """Every edit set that is not deleted, and those of `live` that have been deleted meanwhile by another
        process."""
        return self._read(_news, live)

    def counts(self) -> StoreCounts:
        """Totals."""
        return self._read(_counts)

    def problems(self) -> list[str]:
        """Contradictions between the log and the present state; empty when the database is sound."""
        return self._read(check.problems)

    def prune_requests(self, *, older_than_s: float = KEEP_REQUESTS_S) -> None:
        """Forget request ids that nobody will send again."""
        with self._writer.begin() as conn:
            conn.execute(delete(requests).where(requests.c.created_at < int(self._clock() - older_than_s)))

    def touch(self) -> None:
        """Write something small, durably. Raises SQLAlchemyError when nothing can be written."""
        with self._writer.begin() as conn:
            conn.execute(delete(meta).where(meta.c.key == _TOUCHED))
            conn.execute(insert(meta).values(key=_TOUCHED, value=str(int(self._clock()))))

    def replica_names(self) -> list[str]:
        """Replicas that served when this was last written down."""
        return self._read(lambda conn: list(conn.scalars(select(replicas.c.name))))

    def keep_replica(self, name: str, *, serving: bool) -> None:
        """Record whether a replica serves, so that a restarted store knows which replicas to wait for."""
        with self._writer.begin() as conn:
            conn.execute(delete(replicas).where(replicas.c.name == name))
            if serving:
                conn.execute(insert(replicas).values(name=name, joined_at=int(self._clock())))

    def _read(self, query: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with self._reader.begin() as conn:
            return query(conn, *args, **kwargs)


def _apply_alone(command: commands.Command, tx: Transaction) -> Any:
    """Apply one command completely or not at all. On a shared database another writer may have applied the same request
    first; then look for its result again."""
    try:
        with tx.conn.begin_nested():
            return _apply(command, tx)
    except IntegrityError:
        with tx.conn.begin_nested():
            return _apply(command, tx)


@singledispatch
def _apply(command: commands.Command | commands.Requested, tx: Transaction) -> Any:
    raise TypeError(f"no rule for {type(command).__name__}")


@_apply.register
def _(command: commands.Requested, tx: Transaction) -> Any:
    refs = find_result(tx, command)
    if refs is None:
        refs = _change(command, tx)
        keep_result(tx, command, refs)
    if isinstance(command, commands.CreateEditSet | commands.DeleteEditSet):
        return load_edit_set(tx.conn, refs[0][0])
    loaded = load_edits(tx.conn, refs)
    return loaded if isinstance(command, commands.AddEdits) else loaded[0]


@_apply.register
def _(command: commands.EnsureEditSet, tx: Transaction) -> EditSet:
    return edit_sets.ensure_edit_set(tx, command.project, command.name)


@_apply.register
def _(command: commands.RecordOutcomes, tx: Transaction) -> None:
    outcomes.record_outcomes(tx, command.outcomes)


@_apply.register
def _(command: commands.MarkCompressing, tx: Transaction) -> None:
    outcomes.mark_compressing(tx, command.edits)


@_apply.register
def _(command: commands.RequeueStale, tx: Transaction) -> int:
    return outcomes.requeue_stale(tx, command.fingerprint)


@_apply.register
def _(command: commands.Retokenize, tx: Transaction) -> None:
    outcomes.retokenize(tx, command.edits)


@singledispatch
def _change(command: commands.Requested, tx: Transaction) -> list[EditVersion]:
    """Apply a command that was not applied before; returns the ids (and versions) of what it made or changed."""
    raise TypeError(f"no rule for {type(command).__name__}")


@_change.register
def _(command: commands.CreateEditSet, tx: Transaction) -> list[EditVersion]:
    return edit_sets.create_edit_set(tx, command.project, command.name)


@_change.register
def _(command: commands.DeleteEditSet, tx: Transaction) -> list[EditVersion]:
    return edit_sets.delete_edit_set(tx, command.project, command.edit_set)


@_change.register
def _(command: commands.AddEdits, tx: Transaction) -> list[EditVersion]:
    return edits.add_edits(tx, command.project, command.edit_set, command.edits)


@_change.register
def _(command: commands.ReplaceEdit, tx: Transaction) -> list[EditVersion]:
    return edits.replace_edit(tx, command.project, command.edit_id, command.edit)


@_change.register
def _(command: commands.RetireEdit, tx: Transaction) -> list[EditVersion]:
    return edits.retire_edit(tx, command.project, command.edit_id)


def _heads(conn: Connection, only: set[str] | None) -> dict[str, SetHead]:
    c = edit_sets_table.c
    query = select(c.id, c.version, c.deleted_at)
    if only is not None:
        query = query.where(c.id.in_(only))
    return {row.id: SetHead(row.version, row.deleted_at is not None) for row in conn.execute(query)}


def _news(conn: Connection, live: Collection[str]) -> dict[str, SetHead]:
    c = edit_sets_table.c
    query = select(c.id, c.version).where(c.deleted_at.is_(None))
    heads = {row.id: SetHead(row.version, deleted=False) for row in conn.execute(query)}
    gone = set(live) - heads.keys()
    return heads | (_heads(conn, gone) if gone else {})


def _counts(conn: Connection) -> StoreCounts:
    v = edit_versions.c
    gist_bytes = conn.scalar(select(func.coalesce(func.sum(v.gist_bytes), 0)).where(v.status == "ready")) or 0
    return StoreCounts(edit_sets.count_edit_sets(conn), edits.count_versions(conn), int(gist_bytes))
