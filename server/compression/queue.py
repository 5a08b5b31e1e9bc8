"""Two lanes of jobs and the leases on them, in memory. Pure: the scheduler passes the time in and stores the
outcomes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from incomes_server.compression.model import Lease, QueueLimits, QueueStats, WorkerState
from incomes_server.edits import IdPrefix, new_id

from incomes_plugin.errors import QueueFull
from incomes_plugin.gist.edit import Captured, CaptureJob, EditKey

_MAX_RETRY_AFTER_S = 60
FORGET_S = 30.0
"""A worker asks for jobs every 10 s; one that has not for so long is gone."""


@dataclass
class _Held:
    """A lease as the queue sees it."""

    worker: str
    jobs: dict[EditKey, CaptureJob]
    interactive: frozenset[EditKey]
    since_s: float
    until_s: float
    silence_s: float


@dataclass
class _Worker:
    seen_s: float
    made: int


@dataclass(frozen=True)
class LeaseResult:
    """What follows from a worker's results.

    Attributes:
        made: the store has their gists.
        given_up: tried too often; the store is to know it.
        again: to be tried again.
    """

    made: list[EditKey]
    given_up: list[Captured]
    again: list[CaptureJob]


class JobQueue:
    """Interactive jobs before bulk ones. A job is in a lane or in one lease, never in both."""

    def __init__(self, limits: QueueLimits) -> None:
        self.limits = limits
        self._interactive: dict[EditKey, CaptureJob] = {}
        self._bulk: dict[EditKey, CaptureJob] = {}
        self._leases: dict[str, _Held] = {}
        self._attempts: dict[EditKey, int] = {}
        self._workers: dict[str, _Worker] = {}
        self._s_per_job = 0.01
        self._completed = self._failed = self._retried = 0

    def room(self, *, interactive: bool) -> int:
        """Jobs the lane can still take."""
        if interactive:
            return self.limits.interactive - len(self._interactive)
        return self.limits.bulk - len(self._bulk)

    def known(self) -> set[EditKey]:
        """Jobs in the lanes and in leases."""
        leased = (key for held in self._leases.values() for key in held.jobs)
        return {*self._interactive, *self._bulk, *leased}

    def admit(self, num_jobs: int, *, interactive: bool) -> None:
        """Raises QueueFull unless the lane has room for so many."""
        room = self.room(interactive=interactive)
        if num_jobs > room:
            waiting = len(self._interactive) + (0 if interactive else len(self._bulk))
            raise QueueFull(
                f"the compression queue has room for {max(0, room)} more edits, not {num_jobs}",
                retry_after_s=min(_MAX_RETRY_AFTER_S, max(1, math.ceil(waiting * self._s_per_job))),
            )

    def submit(self, jobs: Iterable[CaptureJob], *, interactive: bool) -> None:
        """Queue all jobs or none. A job in the bulk lane moves to the interactive lane when it is submitted again as
        interactive. Raises QueueFull."""
        skip = self.known() - (set(self._bulk) if interactive else set())
        new = {job.edit: job for job in jobs if job.edit not in skip}
        self.admit(len(new), interactive=interactive)
        for key in new:
            self._bulk.pop(key, None)
        (self._interactive if interactive else self._bulk).update(new)

    def take(self, worker: str, max_jobs: int, now_s: float, silence_s: float = math.inf) -> Lease | None:
        """Lease the next jobs, if any. An older lease of the same worker ends: the worker was restarted, or it never
        got the answer.

        Args:
            silence_s: the lease also ends when the worker has given no sign of life (`beat`) for so long.
        """
        self._workers[worker] = _Worker(now_s, self._workers[worker].made if worker in self._workers else 0)
        for lease_id in [name for name, held in self._leases.items() if held.worker == worker]:
            self.give_back(lease_id)
        taken: dict[EditKey, CaptureJob] = {}
        for lane in (self._interactive, self._bulk):
            for key in list(lane)[: max_jobs - len(taken)]:
                taken[key] = lane.pop(key)
            if lane is self._interactive:
                interactive = frozenset(taken)
        if not taken:
            return None
        for key in taken:
            self._attempts[key] = self._attempts.get(key, 0) + 1
        lease = Lease(new_id(IdPrefix.LEASE), tuple(taken.values()))
        end_s = now_s + min(self.limits.lease_s, silence_s)
        self._leases[lease.id] = _Held(worker, taken, interactive, now_s, end_s, silence_s)
        return lease

    def beat(self, lease_id: str, now_s: float) -> bool:
        """The worker lives; its lease goes on, but not beyond the time that a lease has. False: it has none."""
        held = self._leases.get(lease_id)
        if held is not None:
            self._workers[held.worker].seen_s = now_s
            held.until_s = max(held.until_s, min(held.since_s + self.limits.lease_s, now_s + held.silence_s))
        return held is not None

    def workers(self, now_s: float) -> list[WorkerState]:
        """Those that asked for jobs lately, or have some."""
        leased = {held.worker: len(held.jobs) for held in self._leases.values()}
        self._workers = {
            name: worker for name, worker in self._workers.items() if name in leased or now_s - worker.seen_s < FORGET_S
        }
        return [
            WorkerState(name, leased.get(name, 0), worker.made, now_s - worker.seen_s)
            for name, worker in sorted(self._workers.items())
        ]

    def holds(self, lease_id: str) -> bool:
        """Whether the lease is still out."""
        return lease_id in self._leases

    def judge(self, lease_id: str, made: Sequence[EditKey], reasons: Mapping[EditKey, str]) -> LeaseResult:
        """Decide what is done, what is given up and what to try again. Only the end of the lease changes, so that it
        does not expire while what is given up is being stored.

        Args:
            made: the worker has stored their gists.
            reasons: why others have none; a job in neither has none without a reason.
        """
        held = self._leases.get(lease_id)
        if held is None:  # it expired, or the scheduler restarted: the work is still good
            return LeaseResult([*made], [], [])
        held.until_s = math.inf
        failed = {key: reasons.get(key) or "the worker returned no gist" for key in held.jobs.keys() - set(made)}
        spent = {key for key in failed if self._attempts.get(key, 0) >= self.limits.max_attempts}
        again = [job for key, job in held.jobs.items() if key in failed.keys() - spent]
        return LeaseResult([*made], [self._give_up(key, failed[key]) for key in held.jobs if key in spent], again)

    def finish(self, lease_id: str, result: LeaseResult, now_s: float) -> None:
        """Called when what is settled is durable: drop the lease and queue the other jobs again."""
        self._completed += len(result.made)
        self._failed += len(result.given_up)
        self._retried += len(result.again)
        for key in [*result.made, *(captured.edit for captured in result.given_up)]:
            self._attempts.pop(key, None)
            self._interactive.pop(key, None)
            self._bulk.pop(key, None)
        if (held := self._leases.pop(lease_id, None)) is not None:
            self._workers[held.worker].made += len(result.made)
            self._s_per_job += 0.2 * ((now_s - held.since_s) / len(held.jobs) - self._s_per_job)
            self._return(held, [job for job in result.again if job.edit in held.jobs])

    def give_back(self, lease_id: str, *, attempted: bool = True) -> None:
        """Return a lease's jobs to the front of their lanes. `attempted=False`: the worker never tried."""
        if (held := self._leases.pop(lease_id, None)) is not None:
            if not attempted:
                for key in held.jobs:  # one that another worker has made meanwhile is not counted any more
                    self._attempts[key] = max(0, self._attempts.get(key, 0) - 1)
            self._return(held, list(held.jobs.values()))

    def expire(self, now_s: float) -> list[Captured]:
        """Return the jobs of expired leases to the lanes. Jobs that were tried too often are returned as failures to be
        stored."""
        for lease_id in [name for name, held in self._leases.items() if held.until_s <= now_s]:
            self._retried += len(self._leases[lease_id].jobs)
            self.give_back(lease_id)
        spent = [
            key for lane in (self._interactive, self._bulk) for key in lane
            if self._attempts.get(key, 0) >= self.limits.max_attempts
        ]  # fmt: skip
        return [self._give_up(key, f"no worker finished it within {self.limits.lease_s:g} s") for key in spent]

    def next_expiry_s(self) -> float | None:
        """When the next lease ends."""
        return min((held.until_s for held in self._leases.values()), default=None)

    def stats(self) -> QueueStats:
        """Depths and totals."""
        leased = sum(len(held.jobs) for held in self._leases.values())
        return QueueStats(len(self._interactive), len(self._bulk), leased, self._completed, self._failed, self._retried)

    def _give_up(self, key: EditKey, reason: str) -> Captured:
        return Captured(*key, None, error=f"gave up after {self._attempts.get(key, 0)} attempts: {reason}")

    def _return(self, held: _Held, jobs: Sequence[CaptureJob]) -> None:
        """Put jobs back at the front, so that retries do not wait behind a long import. The limits of the lanes do not
        apply to them."""
        urgent = {job.edit: job for job in jobs if job.edit in held.interactive}
        others = {job.edit: job for job in jobs if job.edit not in held.interactive}
        self._interactive = urgent | self._interactive
        self._bulk = others | self._bulk
