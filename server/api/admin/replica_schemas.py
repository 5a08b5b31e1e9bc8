"""JSON shapes of what runs: engines that serve, and those that compress."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

from incomes_server.api.admin.schemas import Resource
from incomes_server.compression.model import WorkerState
from incomes_server.store.replica_table import ReplicaState


class ReplicaObject(Resource):
    """One engine: the version of each edit set that it applies, and how stale it is."""

    object: Literal["replica"] = "replica"
    serving: bool
    lag: int
    idle_s: float
    positions: dict[str, int]
    nacks: dict[str, str]

    @classmethod
    def of(cls, state: ReplicaState, own_sets: Mapping[str, int]) -> Self:
        """Render a replica's state, for the edit sets of one project and their versions."""
        return cls(
            id=state.name,
            serving=state.serving,
            lag=sum(max(0, v - state.positions.get(edit_set, 0)) for edit_set, v in own_sets.items()),
            idle_s=state.idle_s,
            positions={k: v for k, v in state.positions.items() if k in own_sets},
            nacks={k: v for k, v in state.nacks.items() if k in own_sets},
        )


class WorkerObject(Resource):
    """One that compresses: how many edits it has now, and has made since the scheduler started."""

    object: Literal["worker"] = "worker"
    leased: int
    made: int
    idle_s: float

    @classmethod
    def of(cls, state: WorkerState) -> Self:
        """Render a worker's state."""
        return cls(id=state.name, leased=state.leased, made=state.made, idle_s=state.idle_s)
