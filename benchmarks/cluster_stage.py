"""A fleet that a scenario of `cluster.py` runs on, and what is said of a load afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from benchmarks.cluster_load import QUESTION, Load
from tests.fleet import TENANTS, Fleet, Front, Member, client_of
from tests.postgres import Cluster, serve_postgres
from tests.ray_cluster import ray_cluster
from tests.tiny_model import write_tiny_model

READY_WITHIN_S = 300.0


@dataclass
class Stage:
    """A running fleet.

    Attributes:
        database: PostgreSQL itself.
    """

    fleet: Fleet
    database: Cluster
    engines: list[Member]
    compressors: list[Member]
    front: Front
    nodes: int

    def add_engine(self) -> Member:
        """One more; the first makes the store, the others join."""
        node, join = self.node_of(len(self.engines)), bool(self.engines)
        self.engines.append(member := Member(lambda: self.fleet.server(join=join, node=node)))
        self.front.members.append(member)
        return member

    def add_compressor(self) -> Member:
        """One more."""
        node = self.node_of(len(self.compressors))
        self.compressors.append(member := Member(lambda: self.fleet.compressor(node)))
        return member

    def node_of(self, number: int) -> int:
        """Engines and compressors stand on all nodes in turn, but for the head, if there are others."""
        return 1 + number % (self.nodes - 1) if self.nodes > 1 else 0

    def await_engines(self, number: int) -> float:
        """Seconds until so many are ready and the store knows of no other."""
        return seconds_until(lambda: len(self.front.ready) == number and len(self.serving()) == number)

    @property
    def starts(self) -> int:
        """Of all engines and compressors together."""
        return sum(member.starts for member in [*self.engines, *self.compressors])

    def serving(self) -> list[str]:
        """Names of the engines that the store waits for."""
        with suppress(httpx.HTTPError, KeyError), self.client() as client:
            return [each["id"] for each in client.get("/v1/replicas").json()["data"] if each["serving"]]
        return []

    def client(self, tenant: str = TENANTS[0]) -> httpx.Client:
        """Of the admin API of any engine, once one is ready."""
        while (server := self.front.pick()) is None:
            time.sleep(0.1)
        return client_of(server.admin_url, tenant)

    def edit_sets(self) -> dict[str, str]:
        """Each tenant's default set, made by its first question."""
        found = {}
        for tenant in TENANTS:
            with client_of(self.front.ready[0].chat_url, tenant) as client:
                answer = client.post("/v1/chat/completions", json=QUESTION).raise_for_status()
                found[tenant] = answer.headers["x-incomes-edit-set"]
        return found

    def statuses(self, tenant: str) -> dict[str, str]:
        """Status of each edit of a tenant; asked again when the engine that is asked ends meanwhile."""
        found: dict[str, str] = {}
        page: dict[str, Any] = {"has_more": True, "last_id": None}
        while page["has_more"]:
            after = {"after": page["last_id"]} if page["last_id"] else {}
            with suppress(httpx.HTTPError), self.client(tenant) as client:
                page = client.get("/v1/edits", params={"limit": 100, **after}).raise_for_status().json()
                found |= {edit["id"]: edit["status"] for edit in page["data"]}
        return found

    def load(self, chatters: int, adds_per_s: float) -> Load:
        """Chats and adds, not yet begun."""
        return Load(self.front, chatters, adds_per_s, self.edit_sets())


@contextmanager
def staged(folder: Path, engines: int, compressors: int = 0, nodes: int = 3, **settings: Any) -> Iterator[Stage]:
    """A fleet on a database and a Ray cluster of its own; ready."""
    with ExitStack() as opened:
        database = opened.enter_context(serve_postgres())
        url = opened.enter_context(database.database())
        ray = opened.enter_context(ray_cluster(nodes))
        model = write_tiny_model(folder / "model")
        fleet = Fleet(ray, url, folder / "processes", model, {"compress_here": not compressors, **settings})
        front = Front([])
        opened.callback(front.stop)
        stage = Stage(fleet, database, [], [], front, nodes)
        opened.callback(lambda: stop_all([*stage.engines, *stage.compressors]))
        for number in range(engines):
            stage.add_engine()
            stage.await_engines(number + 1)
        for _ in range(compressors):
            stage.add_compressor()
        seconds_until(lambda: all(member.running for member in stage.compressors))
        yield stage


def stop_all(members: Sequence[Member]) -> None:
    """End them side by side."""
    for member in members:
        member._done = True
    for member in members:
        member.stop()


def seconds_until(condition: Callable[[], bool], limit_s: float = READY_WITHIN_S) -> float:
    """Wait for it; returns how long that took. Raises TimeoutError."""
    start_s = time.monotonic()
    while not condition():
        if time.monotonic() - start_s > limit_s:
            raise TimeoutError(f"not within {limit_s:g} s")
        time.sleep(0.1)
    return time.monotonic() - start_s


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """p50 and p95 in milliseconds."""
    ordered = sorted(seconds)
    return {
        "number": len(ordered),
        "p50_ms": round(1000 * median(ordered), 1) if ordered else 0.0,
        "p95_ms": round(1000 * ordered[int(0.95 * (len(ordered) - 1))], 1) if ordered else 0.0,
    }


def judged(stage: Stage, load: Load, started_s: float) -> dict[str, Any]:
    """What a load has seen, and what became of its edits."""
    figures, seconds = load.stop(), time.monotonic() - started_s
    seconds_until(lambda: bool(stage.front.ready))
    lost = []
    for tenant in TENANTS:
        own = {edit for edit, of in figures.adds.items() if of == tenant}
        others = figures.adds.keys() - own
        found = stage.statuses(tenant)
        lost += [edit for edit in own if found.get(edit) != "ready"]
        figures.wrong += [f"{tenant} sees {edit}" for edit in others & found.keys()]
        figures.wrong += [f"{tenant} was answered from {edit}" for edit in others & figures.applied[tenant]]
    asked = figures.chats + sum(figures.refused.values()) + figures.broken
    return {
        "seconds": round(seconds, 1),
        "chats": figures.chats,
        "chats_per_s": round(figures.chats / seconds, 1),
        "adds": len(figures.adds),
        "adds_per_s": round(len(figures.adds) / seconds, 1),
        "lost": len(lost),
        "stale_after_active": len(figures.stale),
        "wrong_tenant_or_answer": len(figures.wrong),
        "notes": [*figures.stale[:3], *figures.wrong[:3]],
        "refused": dict(figures.refused),
        "connections_broken_by_a_kill": figures.broken,
        "share_refused_or_broken": round((asked - figures.chats) / max(1, asked), 4),
        "chat": spread(figures.chat_s),
        "write_to_active": spread(figures.active_s),
    }
