"""Nouns of the replica protocol, frozen."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ReplicaProgress:
    """How far the live replicas are with one version of one edit set.

    Attributes:
        live: replicas that serve requests now (lease valid).
        acked: those of them that have applied the version.
        nacks: replica name -> why it could not apply a change of this edit set; empty again once it could.
    """

    live: int
    acked: int
    nacks: dict[str, str]

    @property
    def reached(self) -> bool:
        """Whether every live replica applies the version, and there is one."""
        return self.live > 0 and self.acked == self.live


@dataclass(frozen=True)
class ReplicaState:
    """What the store knows of one replica.

    Attributes:
        serving: it has caught up once and takes requests; only such replicas are waited for.
        lag: versions it is behind, summed over all edit sets.
        idle_s: seconds since it was last heard of.
        nacks: edit set id -> reason.
    """

    name: str
    serving: bool
    positions: dict[str, int]
    lag: int
    idle_s: float
    nacks: dict[str, str]
