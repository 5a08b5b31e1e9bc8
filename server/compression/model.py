"""Nouns of the compression queue, frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from incomes_plugin.gist.edit import CaptureJob, EditKey


@dataclass(frozen=True)
class Lease:
    """Jobs one worker has for a limited time. No jobs: nothing came before the timeout, ask again."""

    id: str
    jobs: tuple[CaptureJob, ...]


@dataclass(frozen=True)
class LeaseDone:
    """What became of the jobs of a lease.

    Attributes:
        made: the store has their gists.
        reasons: why others have none.
    """

    lease_id: str
    made: tuple[EditKey, ...]
    reasons: Mapping[EditKey, str]


@dataclass(frozen=True)
class QueueLimits:
    """Bounds of the queue.

    Attributes:
        interactive, bulk: jobs each lane holds at most.
        lease_s: a worker that does not complete by then loses its jobs to the queue.
        max_attempts: how often a job is tried before its edit fails.
        sweep_s: how often edits that nobody submitted are looked for in the store.
    """

    interactive: int = 1_024
    bulk: int = 16_384
    lease_s: float = 120.0
    max_attempts: int = 3
    sweep_s: float = 2.0


@dataclass(frozen=True)
class WorkerState:
    """One that takes jobs.

    Attributes:
        leased: jobs that it has now.
        made: gists since the scheduler started.
        idle_s: since it was last heard of.
    """

    name: str
    leased: int
    made: int
    idle_s: float


@dataclass(frozen=True)
class QueueStats:
    """For metrics: jobs waiting in each lane, leased now, and totals since the scheduler started."""

    interactive: int
    bulk: int
    leased: int
    completed: int
    failed: int
    retried: int
