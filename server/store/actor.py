"""The store as a Ray actor: group commit, wake-ups and the replicas' leases around the durable `EditStore`.

Only the database is truth. The actor may be killed at any moment: Ray restarts it and sends the calls again, request
ids make repeated writes harmless, and replicas tell their positions with the next poll.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any, Concatenate, ParamSpec, TypeVar

from incomes_server.auth.master_key import MasterKey, MasterSource
from incomes_server.edits import SETTLED, Edit
from incomes_server.store import labels
from incomes_server.store.commands import ApplyDue, Command, Compact, ForgetMoves, ForgetRequests, FreeGists, Sent
from incomes_server.store.compaction import compaction_targets, gists_of_no_state
from incomes_server.store.core import Committed, EditStore, heads_of, replica_names
from incomes_server.store.database import failure_of, will_pass
from incomes_server.store.edit_sets import news
from incomes_server.store.edits import get_edits
from incomes_server.store.group_commit import GroupCommit
from incomes_server.store.heads import StoreHeads
from incomes_server.store.log import PAGE_BYTES, read_delta
from incomes_server.store.membership import next_due_at
from incomes_server.store.reads import Readers
from incomes_server.store.replica_table import LEASE_S, ReplicaLag, ReplicaProgress, ReplicaState, ReplicaTable
from incomes_server.store.signals import Signal, Watch, wait_event
from incomes_server.store.terms import ANY_TERMS, StoreTerms
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from incomes_plugin.errors import EditSetNotFound, GistStorageFailed, InvalidValue, NotReady
from incomes_plugin.pool.snapshot import SnapshotDelta
from incomes_plugin.telemetry import context_of, export_traces, span

OTHER_WRITER_CHECK_S = 1.0
OPEN_S = 300.0
FORGOTTEN_AT_ONCE = 1000
STORAGE_PAUSE_S = 0.5
STORAGE_PATIENCE_S = 2.0
"""So long one poll goes on to look for what can be read when something cannot."""
CLOCK_CHECK_S = 0.5
"""How often the clock looks for the next time at which an edit joins or expires; it may have been written meanwhile."""

logger = logging.getLogger("incomes.store")

P = ParamSpec("P")
T = TypeVar("T")


def _open_patiently(
    url: str, masters: Sequence[MasterKey] | MasterSource, gist_storage: str | None = None
) -> EditStore:
    """The store. An actor whose constructor fails is never restarted by Ray, so a restart of the actor during one of
    PostgreSQL, or of what has the master key, waits for it."""
    give_up_s = time.monotonic() + OPEN_S
    while True:
        keys = None
        try:
            keys = masters.read() if isinstance(masters, MasterSource) else masters
            return EditStore(url, masters=keys, gist_storage=gist_storage)
        except NotReady as error:
            cause = error.__cause__
            passes = keys is None or (isinstance(cause, SQLAlchemyError) and will_pass(cause))
            if not passes or time.monotonic() > give_up_s:
                raise
            time.sleep(1.0)


class EditStoreActor:
    """One event loop; SQL runs in a writer's thread and in those of `Readers`. Reached through `StoreClient` only."""

    def __init__(
        self,
        url: str,
        *,
        lease_s: float = LEASE_S,
        masters: Sequence[MasterKey] | MasterSource = (),
        terms: StoreTerms = ANY_TERMS,
        gist_storage: str | None = None,
    ) -> None:
        export_traces("store")
        self._terms = terms
        self._store = _open_patiently(url, masters, gist_storage)
        self._burier = ThreadPoolExecutor(1, "store-objects")
        self._store.prune_requests()
        self._store.write(ApplyDue())  # what expired while no store ran is gone before anybody asks
        self._clock: asyncio.Task[None] | None = None
        self._reader = Readers()
        self._writer = ThreadPoolExecutor(1, "store-writer")
        self._group = GroupCommit(self._store, self._writer, self._committed)
        self._heads = StoreHeads()
        self._heads.merge(self._store.read(heads_of))
        self._table = ReplicaTable(lease_s=lease_s)
        self._table.restore(self._store.read(replica_names), time.monotonic())
        self._news = Signal()
        self._acks = Signal()
        self._watch = Watch()

    async def agree(self, asked: StoreTerms) -> None:
        """A server wants to join. Raises InvalidValue: it has other terms."""
        self._terms.check(asked)

    async def write(self, command: Command | Sent, traceparent: str | None = None) -> Any:
        """Apply one command, durably. `traceparent`: the caller's span."""
        self._start_clock()
        with span("store.commit", context=context_of(traceparent)) if traceparent else nullcontext():
            return await self._group.submit(command)

    async def read(self, query: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Ask one of the store's queries. The connection that it gets cannot write."""
        found: T = await self._in_thread(self._reader.of(query), self._store.read, query, *args, **kwargs)
        return found

    async def wait_status(self, project: str, edit_ids: tuple[str, ...], timeout_s: float) -> list[Edit]:
        """The edits, as soon as none of them waits for compression, or at the timeout."""
        deadline_s = time.monotonic() + timeout_s
        found: dict[str, Edit] = {}
        waiting = set(edit_ids)
        look_at = list(edit_ids)
        with self._watch.on(edit_ids) as changes:
            while True:
                edits: list[Edit] = await self.read(get_edits, project, look_at) if look_at else []
                found |= {edit.id: edit for edit in edits}
                waiting -= {edit.id for edit in edits if edit.status in SETTLED}
                left_s = deadline_s - time.monotonic()
                if left_s <= 0 or not waiting:
                    return [found[edit_id] for edit_id in edit_ids]
                await wait_event(changes.event, left_s)
                look_at = sorted(changes.take() & waiting)

    async def wait_edits(
        self, project: str, edit_ids: tuple[str, ...], timeout_s: float
    ) -> tuple[list[Edit], dict[str, ReplicaProgress]]:
        """`wait_status`, and when none waits any more `wait_active` for the newest version of each of their sets."""
        deadline_s = time.monotonic() + timeout_s
        edits = await self.wait_status(project, edit_ids, timeout_s)
        newest: dict[str, int] = {}
        for edit in edits if all(edit.status in SETTLED for edit in edits) else ():
            newest[edit.edit_set] = max(newest.get(edit.edit_set, 0), edit.set_version or 0)
        return edits, {
            edit_set: await self.wait_active(edit_set, version, max(0.0, deadline_s - time.monotonic()))
            for edit_set, version in newest.items()
        }

    async def wait_active(self, edit_set: str, version: int, timeout_s: float) -> ReplicaProgress:
        """The progress, as soon as every live replica has the version, or at the timeout."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            self._expire()
            if edit_set not in self._heads.known:
                raise EditSetNotFound(f"no edit set {edit_set!r}", param="edit_set")
            progress = self._table.progress(edit_set, version, deleted=self._heads.known[edit_set].deleted)
            now_s = time.monotonic()
            if progress.reached or now_s >= deadline_s:
                return progress
            expiry_s = self._table.next_expiry_s()
            await self._acks.wait(min(deadline_s, expiry_s or deadline_s) - now_s)

    async def poll(
        self, replica: str, positions: dict[str, int], timeout_s: float, serving: bool, instance: str | None = None
    ) -> list[SnapshotDelta[bytes]]:
        """Acknowledge, wait for news, answer with the next pages."""
        self._start_clock()
        deadline_s = time.monotonic() + timeout_s
        now_s = time.monotonic()
        if self._table.ack(replica, positions, now_s, wait_s=timeout_s, serving=serving, instance=instance):
            await self._in_thread(self._writer, self._store.keep_replica, replica, serving=serving)
        self._acks.notify()
        await self._check_positions(positions)
        while not (behind := self._heads.behind(positions, refused=self._table.refusals(replica), serving=serving)):
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                break
            # Another process may write to the same database: two clusters overlap during an upgrade.
            await self._news.wait(min(left_s, OTHER_WRITER_CHECK_S))
            await self._refresh()
        try:
            deltas = await self._pages(replica, behind, positions)
        except GistStorageFailed:
            if not serving:
                raise
            # It goes on with what it has, which is all that anybody was told.
            deltas = []
            await asyncio.sleep(STORAGE_PAUSE_S)
        self._table.heard(replica, time.monotonic())
        return deltas

    async def heartbeat(self, replica: str, instance: str | None = None) -> bool:
        """The replica lives, and is busy. False: its lease was over, or the name is another process's."""
        self._expire()
        return self._table.heard(replica, time.monotonic(), instance=instance)

    async def nack(self, replica: str, edit_set: str, version: int, reason: str) -> None:
        """The replica could not apply a delta."""
        self._table.nack(replica, edit_set, version, reason, time.monotonic())

    async def leave(self, replica: str, instance: str | None = None) -> None:
        """The replica stops; it is waited for no longer."""
        if not self._table.leave(replica, instance):
            return
        await self._in_thread(self._writer, self._store.keep_replica, replica, serving=False)
        self._acks.notify()

    async def health(self) -> str | None:
        """None, or why nothing can be written now."""
        try:
            await self._in_thread(self._writer, self._store.touch)
        except NotReady as error:
            return error.message
        return None

    async def tidy(self, keep_history_s: float, limit_s: float) -> bool:
        """Forget states that stopped being the newest one longer ago and that neither a label nor a replica needs,
        moves that labels left behind, and old request ids; whether some states are left after `limit_s` seconds. Each
        step is a small transaction among those of others."""
        deadline_s = time.monotonic() + limit_s
        before = int(time.time() - keep_history_s)
        await self._group.submit(ForgetMoves(before))
        while time.monotonic() < deadline_s and await self._group.submit(ForgetRequests(FORGOTTEN_AT_ONCE)):
            continue
        await self._in_thread(self._burier, self._store.bury)
        while time.monotonic() < deadline_s and (unseen := await self.read(gists_of_no_state, before)):
            await self._group.submit(FreeGists(tuple(unseen)))
        targets = await self.read(compaction_targets, before)
        for edit_set, version in targets.items():
            while (up_to := self._table.least(edit_set, version)) > 0:
                if time.monotonic() > deadline_s:
                    return True
                if not await self._group.submit(Compact(edit_set, up_to)):
                    break
        return False

    async def replicas(self) -> list[ReplicaState]:
        """All with a valid lease."""
        self._expire()
        return self._table.states(time.monotonic())

    async def lag(self) -> list[ReplicaLag]:
        """How far each is behind the newest versions."""
        self._expire()
        return self._table.lag(self._heads.versions, time.monotonic())

    def _start_clock(self) -> None:
        """The first call after a start begins to keep the times of edits."""
        if self._clock is None or self._clock.done():
            self._clock = asyncio.create_task(self._keep_time())

    async def _keep_time(self) -> None:
        """Edits join and leave at their times. While the database fails, engines pass over what expires."""
        while True:
            wait_s = CLOCK_CHECK_S
            try:
                due_at = await self.read(next_due_at)
                if due_at is not None:
                    if due_at <= time.time():
                        await self._group.submit(ApplyDue())
                        continue
                    wait_s = min(wait_s, due_at - time.time())
            except NotReady as error:
                logger.warning("times of edits could not be kept, trying again: %s", error.message)
            await asyncio.sleep(max(0.01, wait_s))

    def _committed(self, committed: Committed) -> None:
        self._watch.notify(committed.changed)
        if committed.heads:
            self._heads.merge(committed.heads)
            self._news.notify()

    async def _pages(self, replica: str, behind: list[str], positions: dict[str, int]) -> list[SnapshotDelta[bytes]]:
        """One page for each set, as long as all together stay near one page's size; the whole of a label's move.

        Raises:
            GistStorageFailed: nothing else is new. The others come without what could not be read, and before it the
                next time.
        """
        deltas: list[SnapshotDelta[bytes]] = []
        size, failure, start_s = 0, None, time.monotonic()
        refused = self._table.refusals(replica)
        for key in sorted(behind, key=lambda key: "@" not in key and key in refused):
            try:
                if "@" not in key:
                    deltas.append(await self.read(read_delta, key, positions.get(key, 0)))
                elif (moved := await self._label_delta(replica, key, positions)) is not None:
                    deltas.append(moved)
                else:
                    continue
            except GistStorageFailed as error:
                logger.warning("%s waits for %s: %s", replica, key, error.message)
                self._table.nack(replica, key, self._heads.known[key].version, error.message, time.monotonic())
                failure = failure or error
                if time.monotonic() - start_s > STORAGE_PATIENCE_S:
                    break
                continue
            size += sum(map(len, deltas[-1].added))
            if size >= PAGE_BYTES:
                break
        if failure is not None and not deltas:
            raise failure
        return deltas

    async def _label_delta(self, replica: str, label: str, positions: dict[str, int]) -> SnapshotDelta[bytes] | None:
        edit_set, move = label.partition("@")[0], self._heads.known[label].version
        try:
            return await self.read(labels.read_delta, label, positions.get(label, 0), positions.get(edit_set, 0))
        except NotReady as error:
            self._heads.cannot_follow(label, move)
            self._table.nack(replica, label, move, error.message, time.monotonic())
            return None

    async def _check_positions(self, positions: dict[str, int]) -> None:
        """Refuse a replica that is ahead of the log: the database was replaced by an older one under its feet."""
        if self._heads.ahead(positions):
            await self._refresh()
        if ahead := self._heads.ahead(positions):
            raise InvalidValue(f"the replica is ahead of the store in {', '.join(ahead)}; restart the replica")

    async def _refresh(self) -> None:
        sets = frozenset(key for key in self._heads.live if "@" not in key)
        self._heads.merge(await self.read(news, sets))
        self._heads.merge(await self.read(labels.heads))

    def _expire(self) -> None:
        for name in self._table.expire(time.monotonic()):
            self._writer.submit(self._store.keep_replica, name, serving=False)

    async def _in_thread(
        self, pool: ThreadPoolExecutor, function: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        try:
            return await asyncio.wrap_future(pool.submit(function, *args, **kwargs))
        except SQLAlchemyError as error:
            raise failure_of(error) from error
