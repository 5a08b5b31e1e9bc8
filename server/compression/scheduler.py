"""The scheduler actor: gives jobs on lease to workers that ask for them, and learns which are done.

API ──submit──► JobQueue ◄──lease── worker ──gists──► store (durable) │ worker ──next lease (ids)──► lease dropped
                   ▲ sweep: edits that wait in the store and were never submitted (crash, restart, requeue)
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Sequence

from incomes_server.compression.model import Lease, LeaseDone, QueueLimits, QueueStats, WorkerState
from incomes_server.compression.queue import JobQueue, LeaseResult
from incomes_server.store.client import StoreClient
from incomes_server.store.signals import Signal

from incomes_plugin.errors import IncomesError
from incomes_plugin.gist.edit import Captured, CaptureJob

logger = logging.getLogger("incomes.compression")

_REFILL_BELOW = 1_024
_REFILL_JOBS = 4_096
_MARK_AFTER_S = 0.1  # a single edit is ready by then; its activation must not queue behind a write that only informs


class SchedulerActor:
    """One event loop, no threads. Reached through `CompressionClient` only. It may be killed at any moment without
    losing an edit."""

    def __init__(self, namespace: str, limits: QueueLimits) -> None:
        self._namespace = namespace
        self._queue = JobQueue(limits)
        self._work = Signal()
        self._calls: dict[str, int] = {}
        self._store: StoreClient | None = None
        self._ticker: asyncio.Task[None] | None = None
        self._marks: set[asyncio.Task[None]] = set()

    async def admit(self, num_jobs: int, interactive: bool) -> int:
        """The room of the lane. Raises QueueFull when it is less."""
        self._queue.admit(num_jobs, interactive=interactive)
        return self._queue.room(interactive=interactive)

    async def submit(self, jobs: Sequence[CaptureJob], interactive: bool) -> int:
        """Queue all or none; answers with the room that is left. Raises QueueFull."""
        self._start()
        self._queue.submit(jobs, interactive=interactive)
        self._work.notify()
        return self._queue.room(interactive=interactive)

    async def lease(
        self, worker: str, max_jobs: int, timeout_s: float, done: LeaseDone | None, silence_s: float = math.inf
    ) -> Lease:
        """The next jobs, or none at the timeout. A worker's newer call ends its older one (it has been restarted).

        Args:
            done: what became of the worker's lease before; settled first.
            silence_s: the lease ends when the worker does not `beat` for so long.
        """
        self._start()
        if done is not None:
            await self._settle(done)
        deadline_s = time.monotonic() + timeout_s
        call = self._calls[worker] = self._calls.get(worker, 0) + 1
        self._work.notify()
        while self._calls[worker] == call:
            lease = self._queue.take(worker, max_jobs, time.monotonic(), silence_s)
            if lease is not None:
                self._mark(lease)
                return lease
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                break
            await self._work.wait(left_s)
        return Lease("", ())

    async def beat(self, lease_id: str) -> bool:
        """The worker is still at it. False: its jobs were given to others."""
        return self._queue.beat(lease_id, time.monotonic())

    async def workers(self) -> list[WorkerState]:
        """Who takes jobs."""
        return self._queue.workers(time.monotonic())

    async def release(self, lease_id: str) -> None:
        """The worker could not try: its jobs go back and no attempt is counted."""
        self._queue.give_back(lease_id, attempted=False)
        self._work.notify()

    async def replay(self) -> None:
        """Queue what waits in the store and is not known here, oldest first, as far as there is room."""
        self._start()
        known = self._queue.known()
        store = await self._connect()
        jobs = [job for job in await store.pending_jobs(len(known) + _REFILL_JOBS) if job.edit not in known]
        self._queue.submit(jobs[: max(0, self._queue.room(interactive=False))], interactive=False)
        if jobs:
            self._work.notify()

    async def stats(self) -> QueueStats:
        """Depths and totals."""
        self._start()
        return self._queue.stats()

    async def _settle(self, done: LeaseDone) -> None:
        """Drop the lease. Gists are in the store by now. What is given up is stored first; if the store fails, the jobs
        stay in the queue."""
        result = self._queue.judge(done.lease_id, done.made, done.reasons)
        try:
            await self._record(result.given_up)
        except IncomesError:
            self._queue.give_back(done.lease_id, attempted=False)
            self._work.notify()
            raise
        self._queue.finish(done.lease_id, result, time.monotonic())
        self._work.notify()

    def _start(self) -> None:
        """The first call after a start or restart begins the sweeps."""
        if self._ticker is None or self._ticker.done():
            self._ticker = asyncio.create_task(self._tick())

    async def _tick(self) -> None:
        """Sweep the store, return late leases, fail what was tried too often."""
        while True:
            try:
                stats = self._queue.stats()
                if stats.bulk < _REFILL_BELOW:
                    await self.replay()
                await self._expire()
            except IncomesError as error:
                logger.warning("sweep failed, trying again: %s", error)
            wait_s = self._queue.limits.sweep_s
            if (expiry_s := self._queue.next_expiry_s()) is not None:
                wait_s = min(wait_s, max(0.01, expiry_s - time.monotonic()))
            await asyncio.sleep(wait_s)

    async def _expire(self) -> None:
        failed = self._queue.expire(time.monotonic())
        if failed:
            await self._record(failed)
            self._queue.finish("", LeaseResult([], failed, []), time.monotonic())
        self._work.notify()

    async def _record(self, outcomes: Sequence[Captured]) -> None:
        if outcomes:
            await (await self._connect()).record_outcomes(outcomes)

    def _mark(self, lease: Lease) -> None:
        """Show the edits of a long lease as `compressing`. It is for people who look; nothing waits for it."""
        task = asyncio.create_task(self._mark_later(lease))
        self._marks.add(task)
        task.add_done_callback(self._marks.discard)

    async def _mark_later(self, lease: Lease) -> None:
        await asyncio.sleep(_MARK_AFTER_S)
        if not self._queue.holds(lease.id):
            return
        try:
            await (await self._connect()).mark_compressing(lease.jobs)
        except IncomesError as error:
            logger.warning("could not mark %d edits as compressing: %s", len(lease.jobs), error)

    async def _connect(self) -> StoreClient:
        if self._store is None:
            self._store = await StoreClient.connect(self._namespace)
        return self._store
