"""`EditStore`: the durable store, without Ray. All commands that are waiting are applied in one transaction, synced to
disk.

A new write is a class in `commands.py` and its rule here; a new read is a query, a function of a connection.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import singledispatch
from typing import Any, Concatenate, ParamSpec, TypeVar

from incomes_server.auth.master_key import MasterKey
from incomes_server.edits import EditSet
from incomes_server.edits.audit import AuditEvent
from incomes_server.store import (
    api_keys,
    batches,
    commands,
    edit_sets,
    edits,
    erasure,
    evaluations,
    files,
    labels,
    membership,
    outcomes,
    sealing,
    switches,
    verbatims,
)
from incomes_server.store.audit import events_of, write_events
from incomes_server.store.compaction import compact, forget_moves, free
from incomes_server.store.compared import Uncompared
from incomes_server.store.database import failure_of, open_reader, open_writer, will_pass
from incomes_server.store.edit_sets import SetHead
from incomes_server.store.erasure import scrub
from incomes_server.store.objects import GistStorage, bury, with_storage
from incomes_server.store.requests import find_result, forget_requests, keep_result
from incomes_server.store.rows import Transaction, load_edit_set, load_edits
from incomes_server.store.schema import meta, replicas, requests
from incomes_server.store.vault import Vault, unlock, with_vault
from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from incomes_plugin.errors import EditSetLabelled, IncomesError
from incomes_plugin.gist.edit import EditKey

logger = logging.getLogger("incomes.store")
KEEP_REQUESTS_S = 7 * 86_400.0
RETRY_S = 10.0
"""So long a write waits for PostgreSQL to come back, e.g. from a restart, before its caller is told."""
RETRY_EVERY_S = 0.2
_TOUCHED = "touched_at"

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Committed:
    """Results of one transaction, one per command: a value, or the error that command alone met.

    Attributes:
        changed: edits whose status moved.
        heads: edit sets and labels that moved, as they are now.
    """

    results: list[Any]
    changed: frozenset[str]
    heads: dict[str, SetHead]


class EditStore:
    """One database. Reads may run beside a write; writes must not run beside each other on SQLite."""

    def __init__(
        self,
        url: str,
        *,
        masters: Sequence[MasterKey] = (),
        clock: Callable[[], float] = time.time,
        gist_storage: str | None = None,
    ) -> None:
        """Open or create the database. Raises NotReady when it does not answer, or a newer version wrote it.

        Args:
            gist_storage: URL of the object storage that takes the gists; None = they are in the database.
        """
        self._clock = clock
        vault = Vault(masters) if masters else None
        self._storage = GistStorage(gist_storage, url) if gist_storage else None
        self._writer = with_storage(with_vault(open_writer(url), vault), self._storage)
        with ExitStack() as undo:
            undo.callback(self.close_writer)
            with self._writer.begin() as conn:
                unlock(conn, vault)
            undo.pop_all()
        self._reader = with_storage(with_vault(open_reader(url), vault), self._storage)
        self._clean = scrub(self._writer)

    def close(self) -> None:
        """Give the connections back."""
        self._reader.dispose()
        self.close_writer()

    def close_writer(self) -> None:
        """What `close` does for a store whose opening failed."""
        self._writer.dispose()
        if self._storage is not None:
            self._storage.close()

    def probe_storage(self) -> None:
        """Check that the gist storage takes and gives objects. Raises GistStorageFailed."""
        if self._storage is not None:
            self._storage.probe()

    def bury(self) -> bool:
        """Delete objects of gists that were let go; whether none is left."""
        return bury(self._writer)

    def commit(self, batch: Sequence[commands.Command | commands.Sent]) -> Committed:
        """Apply all commands in one durable transaction; a command that fails leaves no trace and stops no other.
        A command without an envelope is the server's own. A transaction that PostgreSQL broke off is tried again."""
        changed: set[str] = set()  # of all attempts: one may have been committed although its answer was lost
        touched: set[str] = set()
        give_up_s = time.monotonic() + RETRY_S
        while True:
            try:
                return self._attempt(batch, changed, touched)
            except SQLAlchemyError as error:
                if not will_pass(error) or time.monotonic() > give_up_s:
                    raise
                time.sleep(RETRY_EVERY_S)

    def _attempt(
        self, batch: Sequence[commands.Command | commands.Sent], changed: set[str], touched: set[str]
    ) -> Committed:
        results: list[Any] = []
        events: list[AuditEvent] = []
        with self._writer.begin() as conn:
            tx = Transaction(conn, int(self._clock()), changed, touched)
            for item in batch:
                sent = item if isinstance(item, commands.Sent) else commands.Sent(item)
                try:
                    tx.actor = sent.origin.principal.key_id
                    results.append(_apply_alone(sent.command, tx))
                    events += events_of(tx, sent.command, sent.origin)
                except IncomesError as error:
                    results.append(error)
                except DataError as error:
                    results.append(failure_of(error))
            write_events(tx, events)
            heads = heads_of(conn, touched)
        if tx.erased:
            self._clean = scrub(self._writer)
            self.bury()
        return Committed(results, frozenset(changed), heads)

    def write(self, command: commands.Command | commands.Sent) -> Any:
        """One command in its own transaction; raises its error."""
        (result,) = self.commit([command]).results
        if isinstance(result, IncomesError):
            raise result
        return result

    def read(self, query: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Ask one of the store's queries, e.g. `read(get_edit, project, edit_id)`, in one state of the database."""
        with self._reader.begin() as conn:
            return query(conn, *args, **kwargs)

    def prune_requests(self, *, older_than_s: float = KEEP_REQUESTS_S) -> None:
        """When no server runs yet: forget request ids that nobody will send again, and files that never arrived as a
        whole."""
        with self._writer.begin() as conn:
            conn.execute(delete(requests).where(requests.c.created_at < int(self._clock() - older_than_s)))
            files.prune_parts(conn)

    def touch(self) -> None:
        """Write something small, durably, and clear away what could not be before. Raises SQLAlchemyError when nothing
        can be written."""
        now = str(int(self._clock()))
        self._clean = self._clean or scrub(self._writer)
        with self._writer.begin() as conn:
            if conn.execute(update(meta).where(meta.c.key == _TOUCHED).values(value=now)).rowcount == 0:
                conn.execute(insert(meta).values(key=_TOUCHED, value=now))

    def keep_replica(self, name: str, *, serving: bool) -> None:
        """Record whether a replica serves, so that a restarted store knows which replicas to wait for."""
        with self._writer.begin() as conn:
            conn.execute(delete(replicas).where(replicas.c.name == name))
            if serving:
                conn.execute(insert(replicas).values(name=name, joined_at=int(self._clock())))


def heads_of(conn: Connection, only: Collection[str] | None = None) -> dict[str, SetHead]:
    """What replicas follow: every edit set and label, deleted ones too; or those of `only`."""
    if only is None:
        return edit_sets.heads(conn) | labels.heads(conn)
    at_labels = {key for key in only if "@" in key}
    found = edit_sets.heads(conn, set(only) - at_labels)
    return found | labels.heads(conn, at_labels) if at_labels else found


def replica_names(conn: Connection) -> list[str]:
    """Replicas that served when this was last written down."""
    return list(conn.scalars(select(replicas.c.name)))


def _apply_alone(command: commands.Command, tx: Transaction) -> Any:
    """Apply one command completely or not at all. On a shared database another writer may have applied the same request
    first; then look for its result again."""
    try:
        return _apply_once(command, tx)
    except IntegrityError:
        return _apply_once(command, tx)


def _apply_once(command: commands.Command, tx: Transaction) -> Any:
    tx.notes, tx.replayed = {}, False
    with tx.conn.begin_nested():
        try:
            return _apply(command, tx)
        except (IncomesError, SQLAlchemyError):
            raise
        except Exception as error:  # a defect: it must not fail the writes of others in the transaction
            name = type(command).__name__
            logger.exception("%s failed", name)
            raise IncomesError(f"internal error ({type(error).__name__}) in {name}; the server's log has it") from error


@singledispatch
def _apply(command: commands.Command | commands.Requested, tx: Transaction) -> Any:
    raise TypeError(f"no rule for {type(command).__name__}")


@_apply.register
def _(command: commands.Requested, tx: Transaction) -> Any:
    refs = find_result(tx, command)
    if refs is None:
        refs = _change(command, tx)
        keep_result(tx, command, refs)
    if isinstance(command, commands.DataKeyCommand):
        return sealing.data_key_state(tx.conn, command.project)
    if isinstance(command, commands.TenancyCommand):
        return api_keys.load_changed(tx.conn, command, refs[0][0])
    if isinstance(command, commands.SetEvalSuite):
        return evaluations.load_suite(tx.conn, refs[0][0])
    if isinstance(command, commands.RecordEvalRun):
        return evaluations.load_run(tx.conn, refs[0][0])
    if isinstance(command, commands.CreateEditSet | commands.DeleteEditSet | commands.SwitchEditSet):
        return load_edit_set(tx.conn, refs[0][0])
    if isinstance(command, commands.MoveLabel | commands.DeleteLabel):
        edit_set, _, name = refs[0][0].partition("@")
        return labels.load_label(tx.conn, edit_set, name, refs[0][1])
    if isinstance(command, commands.KeepFile | commands.DeleteFile):
        return files.kept(command, tx, refs[0][0])
    if isinstance(command, commands.CreateBatch | commands.CancelBatch):
        return batches.get_batch(tx.conn, command.project, refs[0][0])
    loaded = load_edits(tx.conn, refs)
    return loaded if isinstance(command, commands.AddEdits) else loaded[0]


@_apply.register
def _(command: commands.EnsureEditSet, tx: Transaction) -> EditSet:
    return edit_sets.ensure_edit_set(tx, command.project, command.name)


@_apply.register
def _(command: commands.Compact, tx: Transaction) -> bool:
    return compact(tx, command.edit_set, command.up_to)


@_apply.register
def _(command: commands.FreeGists, tx: Transaction) -> None:
    free(tx, command.edits)


@_apply.register
def _(command: commands.ForgetMoves, tx: Transaction) -> None:
    forget_moves(tx, command.before)


@_apply.register
def _(command: commands.ForgetRequests, tx: Transaction) -> bool:
    return forget_requests(tx, tx.now - int(KEEP_REQUESTS_S), command.limit)


@_apply.register
def _(command: commands.RecordOutcomes, tx: Transaction) -> list[Uncompared]:
    return outcomes.record_outcomes(tx, command.outcomes)


@_apply.register
def _(command: commands.ApplyDue, tx: Transaction) -> None:
    membership.apply_due(tx)


@_apply.register
def _(command: commands.MarkCompressing, tx: Transaction) -> None:
    outcomes.mark_compressing(tx, command.edits)


@_apply.register
def _(command: commands.RequeueStale, tx: Transaction) -> int:
    return outcomes.requeue_stale(tx, command.fingerprint)


@_apply.register
def _(command: commands.Reseal, tx: Transaction) -> sealing.Resealed:
    return sealing.reseal(tx, command.limit, command.damaged)


@_apply.register
def _(command: commands.Retokenize, tx: Transaction) -> None:
    outcomes.retokenize(tx, command.jobs)


@_apply.register
def _(command: commands.SwitchServer, tx: Transaction) -> dict[str, int]:
    return switches.switch_server(tx, command.on)


@_apply.register
def _(command: commands.EraseAgain, tx: Transaction) -> int:
    return erasure.erase_again(tx, command.edits)


for _kind, _rule in (files.STEPS | batches.STEPS | verbatims.STEPS).items():
    _apply.register(_kind, _rule)


@singledispatch
def _change(command: commands.Requested, tx: Transaction) -> list[EditKey]:
    """Apply a command that was not applied before; returns the ids (and versions) of what it made or changed."""
    raise TypeError(f"no rule for {type(command).__name__}")


@_change.register
def _(command: commands.CreateEditSet, tx: Transaction) -> list[EditKey]:
    return edit_sets.create_edit_set(
        tx, command.project, command.name, two_person=command.two_person, on_conflict=command.on_conflict
    )


@_change.register
def _(command: commands.DeleteEditSet, tx: Transaction) -> list[EditKey]:
    found = edit_sets.find_edit_set(tx.conn, command.project, command.edit_set)
    if names := [label.name for label in labels.labels_of(tx.conn, found.id)]:
        raise EditSetLabelled(
            f"requests name states of edit set {found.name} by its labels {', '.join(names)}; delete these first",
            param="edit_set",
        )
    return edit_sets.delete_edit_set(tx, command.project, command.edit_set, command.if_match)


@_change.register
def _(command: commands.AddEdits, tx: Transaction) -> list[EditKey]:
    return edits.add_edits(tx, command.project, command.edit_set, command.edits)


@_change.register
def _(command: commands.ReplaceEdit, tx: Transaction) -> list[EditKey]:
    return edits.replace_edit(tx, command.project, command.edit_id, command.edit, command.if_match)


@_change.register
def _(command: commands.RetireEdit, tx: Transaction) -> list[EditKey]:
    return edits.retire_edit(tx, command.project, command.edit_id, command.if_match)


@_change.register
def _(command: commands.MoveLabel, tx: Transaction) -> list[EditKey]:
    state = evaluations.state_at(tx.conn, command.project, command.edit_set, command.to)
    evaluations.check_evaluated(tx.conn, command.name, state)
    return labels.move_label(tx, command)


@_change.register
def _(command: commands.DeleteLabel, tx: Transaction) -> list[EditKey]:
    return labels.delete_label(tx, command)


@_change.register
def _(command: commands.SetEvalSuite, tx: Transaction) -> list[EditKey]:
    return evaluations.set_suite(tx, command.project, command.suite)


@_change.register
def _(command: commands.RecordEvalRun, tx: Transaction) -> list[EditKey]:
    return evaluations.record_run(tx, command.project, command.snapshot, command.asked)


@_change.register
def _(command: commands.TenancyCommand, tx: Transaction) -> list[EditKey]:
    return api_keys.change(tx, command)


@_change.register
def _(command: commands.RotateDataKey, tx: Transaction) -> list[EditKey]:
    return sealing.rotate_data_key(tx, command.project)


@_change.register
def _(command: commands.EraseDataKeys, tx: Transaction) -> list[EditKey]:
    return sealing.erase_data_keys(tx, command.project)


@_change.register
def _(command: commands.RestoreEdit, tx: Transaction) -> list[EditKey]:
    return edits.restore_edit(
        tx, command.project, command.edit_id, command.version, command.token_ids, command.if_match
    )


@_change.register
def _(command: commands.SwitchCommand, tx: Transaction) -> list[EditKey]:
    if isinstance(command, commands.SwitchEditSet):
        return switches.switch_edit_set(tx, command.project, command.edit_set, command.on)
    if isinstance(command, commands.ApproveEdit):
        return switches.approve_edit(tx, command.project, command.edit_id, command.if_match)
    return switches.switch_edit(tx, command.project, command.edit_id, command.on, command.if_match)


@_change.register
def _(command: commands.NoteRecall, tx: Transaction) -> list[EditKey]:
    return verbatims.note_recall(tx, command)


@_change.register
def _(command: commands.EraseEdit, tx: Transaction) -> list[EditKey]:
    return erasure.erase_edit(tx, command.project, command.edit_id, command.if_match)


for _kind, _rule in (files.REQUESTS | batches.REQUESTS).items():
    _change.register(_kind, _rule)
