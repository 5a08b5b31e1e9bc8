"""The state of engine and pool: what each worker answers to the handshake, and what the server is told of it."""

from __future__ import annotations

from dataclasses import dataclass

from incomes_plugin.figures import RoutingFigures
from incomes_plugin.pool.gists import PoolUsage
from incomes_plugin.pool.snapshot import SnapshotRef


@dataclass(frozen=True)
class WorkerStatus:
    """One rank; all ranks agree.

    Attributes:
        fingerprint: of model, adapter and dtype.
        runner: vLLM model runner, `v1` or `v2`.
        layers: reading layers.
        num_steps: steps that carried edits or captures since the start.
        pool: what its pool holds; snapshots that older requests still read are included.
        routing: what routing has done since the start.
    """

    fingerprint: str
    vllm_version: str
    runner: str
    layers: tuple[int, ...]
    num_steps: int
    pool: PoolUsage
    routing: RoutingFigures


@dataclass(frozen=True)
class EngineStatus:
    """All ranks, and the requests in flight.

    Attributes:
        worker: what all ranks answered.
        pinned_requests, pinned_by_set: requests in flight that read a pool.
        edit_sets: newest committed snapshot of each edit set.
    """

    worker: WorkerStatus
    pinned_requests: int
    pinned_by_set: dict[str, int]
    edit_sets: dict[str, SnapshotRef]
