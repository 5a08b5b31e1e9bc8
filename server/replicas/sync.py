"""The replica loop: poll -> apply in order -> acknowledge by the next poll. Runs beside every engine.

catching up ──(everything applied, store told)──► serving ──(store out of reach for a lease)──► catching up
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from uuid import uuid4

from incomes_server.store.client import StoreClient
from incomes_server.store.replica_table import LEASE_S

from incomes_plugin.errors import IncomesError, ReplicaNameTaken, SnapshotNotFound
from incomes_plugin.pool.snapshot import SnapshotDelta, SnapshotRef

logger = logging.getLogger("incomes.replicas")

Apply = Callable[[SnapshotDelta[bytes]], Awaitable[None]]

WAIT_S = 2.0
LEAVE_S = 2.0
MIN_BACKOFF_S = 0.05
MAX_BACKOFF_S = 1.0  # an edit set that cannot be applied delays the others by this much at most


async def run_replica(
    store: StoreClient,
    apply: Apply,
    *,
    name: str,
    on_caught_up: Callable[[], None],
    on_lost: Callable[[str], None] | None = None,
    on_refused: Callable[[str, str | None], None] | None = None,
    on_leased: Callable[[float], None] | None = None,
    serves: bool = True,
) -> None:
    """Keep one engine's pool at the store's head until cancelled.

    Args:
        apply: takes the engine from `delta.base` to `delta.snapshot`, all or nothing, removals before additions; or
            drops a deleted set. A delta may come again after a failure.
        name: unique among replicas, stable over restarts of the same place.
        on_caught_up: called when the replica has everything and the store waits for it: it may serve from now on.
        on_lost: called with a reason when the store has been out of reach for longer than the lease. Writes may then be
            acknowledged as active without this replica, so it must not serve until `on_caught_up` is called again.
        on_refused: called with an edit set (or a label's key) and the reason when `apply` failed, and with None once it
            has worked: what the engine has of it is not what callers were told.
        on_leased: called with the time, by the monotonic clock, up to which the store waits for this replica at least.
            From then on it must not serve, also where this loop cannot say so: it applies a change, or the whole
            process was stopped.
        serves: False for an engine that follows without ever taking requests: nobody waits for it.
    """
    await _Replica(store, apply, name, on_caught_up, on_lost, on_refused, on_leased, serves).run()


@dataclass
class _Replica:
    store: StoreClient
    apply: Apply
    name: str
    on_caught_up: Callable[[], None]
    on_lost: Callable[[str], None] | None
    on_refused: Callable[[str, str | None], None] | None
    on_leased: Callable[[float], None] | None
    serves: bool = True
    positions: dict[str, int] = field(default_factory=dict)
    serving: bool = False
    backoff_s: float = MIN_BACKOFF_S
    until_s: float = 0.0
    instance: str = field(default_factory=lambda: uuid4().hex)

    async def run(self) -> None:
        try:
            while True:
                await self._step()
        finally:
            with suppress(IncomesError, TimeoutError):
                await asyncio.wait_for(self.store.leave(self.name, self.instance), LEAVE_S)

    async def _step(self) -> None:
        try:
            async with asyncio.timeout(self._silence_s()):
                deltas = await self._poll()
        except (IncomesError, TimeoutError) as error:
            await self._lost(error)
            return
        failed = False
        async with self._heartbeats():
            for delta in deltas:
                failed |= not await self._take(delta)
        if failed:
            await self._wait()
        else:
            self.backoff_s = MIN_BACKOFF_S

    def _silence_s(self) -> float | None:
        """How long the store may be silent before it stops waiting for this replica. For a replica that does not serve
        yet there is no limit."""
        return max(0.0, self.until_s - time.monotonic()) if self.serving else None

    async def _poll(self) -> list[SnapshotDelta[bytes]]:
        """Deltas to apply. While catching up an empty answer means there is nothing left: register, then serve."""
        if self.serving:
            return await self._ask(WAIT_S, serving=True)
        deltas = await self._ask(0 if self.serves else WAIT_S, serving=False)
        if not deltas and self.serves:
            deltas = await self._ask(0, serving=True)
            self.serving = True
            self.on_caught_up()
        return deltas

    async def _ask(self, timeout_s: float, *, serving: bool) -> list[SnapshotDelta[bytes]]:
        sent_s = time.monotonic()
        deltas = await self.store.poll(
            self.name, self.positions, timeout_s=timeout_s, serving=serving, instance=self.instance
        )
        if serving:
            self._leased(min(sent_s + timeout_s, time.monotonic()) + LEASE_S)
        return deltas

    def _leased(self, until_s: float) -> None:
        """The store waits so long, counted from when it had the call, not from its answer: that may have lain here
        while this process was stopped."""
        self.until_s = until_s
        if self.on_leased is not None:
            self.on_leased(until_s)

    async def _take(self, delta: SnapshotDelta[bytes]) -> bool:
        """Apply one delta; a refusal is reported and the delta comes again with the next poll."""
        key, version = delta.key, delta.position
        try:
            await self.apply(delta)
        except Exception as error:  # noqa: BLE001 - whatever the engine raises is the reason the others get to see
            reason = f"{type(error).__name__}: {error}"
            self._say_refused(key, reason)
            if isinstance(error, SnapshotNotFound) and delta.label is None and delta.base is not None:
                await self._start_over(key, reason)
                return False
            logger.warning("%s cannot go to version %d of %s: %s", self.name, version, key, reason)
            with suppress(IncomesError):
                await self.store.nack(self.name, key, version, reason)
            return False
        self._say_refused(key, None)
        if delta.deleted:
            self.positions.pop(key, None)
        else:
            self.positions[key] = version
        return True

    async def _start_over(self, edit_set: str, reason: str) -> None:
        """The store has forgotten the state that this replica has, or never had it: catch up from nothing, and do not
        serve meanwhile."""
        if self.serving and self.on_lost is not None:
            self.on_lost(f"edit set {edit_set} is loaded anew: {reason}")
        self.serving = False
        with suppress(IncomesError):
            await self.apply(SnapshotDelta(None, SnapshotRef.empty(edit_set), deleted=True))
            self.positions.pop(edit_set, None)

    def _say_refused(self, edit_set: str, reason: str | None) -> None:
        if self.on_refused is not None:
            self.on_refused(edit_set, reason)

    @asynccontextmanager
    async def _heartbeats(self) -> AsyncIterator[None]:
        """Keep the lease while changes are applied."""
        task = asyncio.create_task(self._beat())
        try:
            yield
        finally:
            task.cancel()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(LEASE_S / 3)
            with suppress(IncomesError):
                sent_s = time.monotonic()
                known = await self.store.heartbeat(self.name, self.instance)
                if self.serving:  # the store may have stopped waiting meanwhile
                    self._leased(sent_s + LEASE_S if known else 0.0)

    async def _lost(self, error: Exception) -> None:
        """The store does not answer, or refuses the positions that this replica reports."""
        logger.warning("%s cannot poll the store: %s: %s", self.name, type(error).__name__, error)
        if isinstance(error, ReplicaNameTaken) and self.on_lost is not None:
            self.serving = False
            self.on_lost(error.message)
        if self.serving and self._silence_s() == 0:
            self.serving = False
            if self.on_lost is not None:
                self.on_lost(f"the edit store has been out of reach for {LEASE_S:g} s: {error}")
        await self._wait()

    async def _wait(self) -> None:
        await asyncio.sleep(self.backoff_s)
        self.backoff_s = min(2 * self.backoff_s, MAX_BACKOFF_S)
