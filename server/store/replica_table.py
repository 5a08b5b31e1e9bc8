"""What the store knows of the replicas: leases, acknowledged positions, refusals. In memory and pure; the time is
passed in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from incomes_plugin.errors import ReplicaNameTaken

LEASE_S = 10.0


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
        idle_s: seconds since it was last heard of.
        nacks: edit set id -> reason.
    """

    name: str
    serving: bool
    positions: dict[str, int]
    idle_s: float
    nacks: dict[str, str]


@dataclass(frozen=True)
class ReplicaLag:
    """How far a replica is behind.

    Attributes:
        serving: it takes requests.
        versions: that it has yet to apply, over all edit sets; after a restart of the store, until it polls: all.
        idle_s: seconds since it was last heard of.
    """

    name: str
    serving: bool
    versions: int
    idle_s: float


@dataclass
class _Replica:
    seen_s: float
    lease_until_s: float
    serving: bool
    #: which process it is; None after a restart of the store, until it polls.
    instance: str | None = None
    #: None after a restart of the store, until the replica polls: it may hold anything.
    positions: dict[str, int] | None = None
    nacks: dict[str, tuple[int, str]] = field(default_factory=dict)


class ReplicaTable:
    """Replicas with a valid lease. One that has been silent for its lease is forgotten, and waited for no longer."""

    def __init__(self, *, lease_s: float = LEASE_S) -> None:
        self._lease_s = lease_s
        self._replicas: dict[str, _Replica] = {}

    def restore(self, names: Iterable[str], now_s: float) -> None:
        """After a restart of the store: these served before, so they are waited for until their lease ends."""
        for name in names:
            self._replicas[name] = _Replica(now_s, now_s + self._lease_s, serving=True)

    def heard(self, name: str, now_s: float, *, wait_s: float = 0.0, instance: str | None = None) -> bool:
        """Extend the lease; `wait_s` is how long the replica may now be silent because it waits for us. False: it has
        none."""
        replica = self._replicas.get(name)
        if replica is None or (None not in (instance, replica.instance) and instance != replica.instance):
            return False
        replica.seen_s = now_s
        replica.lease_until_s = max(replica.lease_until_s, now_s + wait_s + self._lease_s)
        return True

    def ack(
        self,
        name: str,
        positions: Mapping[str, int],
        now_s: float,
        *,
        wait_s: float,
        serving: bool,
        instance: str | None = None,
    ) -> bool:
        """A poll: heartbeat and positions. Returns whether it newly serves, or serves no longer.

        Args:
            instance: tells two processes apart that go by the same name.

        Raises:
            ReplicaNameTaken: another process has the name, and its lease is not over.
        """
        known = self._replicas.get(name)
        if (
            known
            and None not in (instance, known.instance)
            and instance != known.instance
            and known.lease_until_s > now_s
        ):
            raise ReplicaNameTaken(
                f"another engine goes by the name {name!r}: give each its own (`replica_name`). One that was killed "
                f"has it for {known.lease_until_s - now_s:.0f} s more",
                param="replica_name",
            )
        replica = known or _Replica(now_s, now_s, serving=False)
        replica.instance = instance
        changed = replica.serving != serving
        self._replicas[name] = replica
        replica.positions = dict(positions)
        replica.serving = serving
        replica.nacks = {s: nack for s, nack in replica.nacks.items() if positions.get(s, 0) < nack[0]}
        replica.lease_until_s = now_s
        self.heard(name, now_s, wait_s=wait_s)
        return changed

    def nack(self, name: str, edit_set: str, version: int, reason: str, now_s: float) -> None:
        """The replica could not apply the delta to `version`."""
        if (replica := self._replicas.get(name)) is not None:
            replica.nacks[edit_set] = (version, reason)
            self.heard(name, now_s)

    def leave(self, name: str, instance: str | None = None) -> bool:
        """Forget it; False: the name is another process's."""
        known = self._replicas.get(name)
        if known and None not in (instance, known.instance) and instance != known.instance:
            return False
        self._replicas.pop(name, None)
        return True

    def expire(self, now_s: float) -> list[str]:
        """Forget and return the replicas whose lease is over."""
        gone = [name for name, replica in self._replicas.items() if replica.lease_until_s <= now_s]
        for name in gone:
            del self._replicas[name]
        return gone

    def least(self, edit_set: str, version: int) -> int:
        """The version, or the least one that a replica has of the edit set; 0 while it is unknown what one has."""
        if any(replica.positions is None for replica in self._replicas.values()):
            return 0
        positions = [(replica.positions or {}).get(edit_set, 0) for replica in self._replicas.values()]
        return min([version, *filter(None, positions)])

    def refusals(self, name: str) -> dict[str, int]:
        """What the replica said it cannot apply: versions of edit sets, moves of labels."""
        replica = self._replicas.get(name)
        return {} if replica is None else {key: version for key, (version, _) in replica.nacks.items()}

    def next_expiry_s(self) -> float | None:
        """When the next lease ends."""
        return min((replica.lease_until_s for replica in self._replicas.values()), default=None)

    def progress(self, edit_set: str, version: int, *, deleted: bool) -> ReplicaProgress:
        """How many serving replicas apply `version`. One that never had a deleted set has nothing to remove."""
        serving = {name: replica for name, replica in self._replicas.items() if replica.serving}
        acked = 0
        for replica in serving.values():
            if replica.positions is not None:
                position = replica.positions.get(edit_set, 0)
                acked += position >= version or (deleted and edit_set not in replica.positions)
        nacks = {name: replica.nacks[edit_set][1] for name, replica in serving.items() if edit_set in replica.nacks}
        return ReplicaProgress(len(serving), acked, nacks)

    def lag(self, heads: Mapping[str, int], now_s: float) -> list[ReplicaLag]:
        """Each replica's distance from the newest version of every edit set."""
        return [
            ReplicaLag(
                name,
                replica.serving,
                sum(max(0, head - (replica.positions or {}).get(edit_set, 0)) for edit_set, head in heads.items()),
                now_s - replica.seen_s,
            )
            for name, replica in sorted(self._replicas.items())
        ]

    def states(self, now_s: float) -> list[ReplicaState]:
        """All of them."""
        return [
            ReplicaState(
                name=name,
                serving=replica.serving,
                positions=dict(replica.positions or {}),
                idle_s=now_s - replica.seen_s,
                nacks={s: reason for s, (_, reason) in replica.nacks.items()},
            )
            for name, replica in sorted(self._replicas.items())
        ]
