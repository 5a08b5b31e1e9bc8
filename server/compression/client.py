"""`CompressionClient`: async face of the scheduler actor, for the API (submit) and the workers (lease)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from incomes_server.compression.model import Lease, LeaseDone, QueueStats, WorkerState
from incomes_server.store.ray_call import call, find_actor

from incomes_plugin.gist.edit import CaptureJob

ACTOR_NAME = "compression-scheduler"


class CompressionClient:
    """Typed calls to the scheduler; errors arrive as the `IncomesError` that was raised there."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor
        self._room = {True: 0, False: 0}

    @classmethod
    async def connect(cls, namespace: str = "incomes") -> CompressionClient:
        """Find the actor that `start_ray` created.

        Raises:
            NotReady: there is none.
        """
        return cls(find_actor(ACTOR_NAME, namespace))

    async def admit(self, num_jobs: int, *, interactive: bool) -> None:
        """Ask before `StoreClient.add_edits`: pending edits in the store are compressed whether submitted or not.

        The room that the queue had at the last answer is counted down here, and the queue is asked when it is used up.
        Others may have used it meanwhile: then `submit` raises, and the next call asks.

        Raises:
            QueueFull: that many jobs have no room now; `retry_after_s` says when to try again.
        """
        if num_jobs > self._room[interactive]:
            self._room[interactive] = await call(self._actor.admit.remote(num_jobs, interactive))
        self._room[interactive] -= num_jobs

    async def submit(self, jobs: Sequence[CaptureJob], *, interactive: bool) -> None:
        """Queue all jobs or none. Jobs that are queued already stay where they are.

        Raises:
            QueueFull: no room; nothing was queued.
        """
        try:
            self._room[interactive] = await call(self._actor.submit.remote(tuple(jobs), interactive))
        except BaseException:  # full, out of reach, or hanging: ask before the next edit is stored
            self._room[interactive] = 0
            raise

    async def lease(
        self,
        worker: str,
        max_jobs: int,
        *,
        timeout_s: float,
        done: LeaseDone | None = None,
        silence_s: float = math.inf,
    ) -> Lease:
        """Wait up to `timeout_s` for jobs: interactive ones first, filled up with bulk ones.

        Args:
            done: what became of the lease before. Its jobs without a gist are tried again; after the last attempt their
                edit is failed, durably before this returns. When this raises, it is not to be sent again.
            silence_s: without a `beat` for so long the lease ends.
        """
        return await call(self._actor.lease.remote(worker, max_jobs, timeout_s, done, silence_s))

    async def beat(self, lease_id: str) -> bool:
        """The worker is still at it; False: its jobs were given to others."""
        return await call(self._actor.beat.remote(lease_id))

    async def workers(self) -> list[WorkerState]:
        """Those that take jobs."""
        return await call(self._actor.workers.remote())

    async def release(self, lease_id: str) -> None:
        """Give the jobs back because the engine cannot work now. This does not count as an attempt."""
        await call(self._actor.release.remote(lease_id))

    async def replay(self) -> None:
        """Look for pending edits in the store now (after `requeue_stale`)."""
        await call(self._actor.replay.remote())

    async def stats(self) -> QueueStats:
        """Depths and totals."""
        return await call(self._actor.stats.remote())
