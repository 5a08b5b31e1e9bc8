"""Shared by the server's tests: a store on disk, and one local Ray for the whole session."""

from __future__ import annotations

import os
import signal
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from incomes_server.auth.master_key import MasterKey
from incomes_server.boot.actors import RaySettings, create_actors
from incomes_server.boot.ray_local import start_ray, stop_ray
from incomes_server.compression.client import ACTOR_NAME as SCHEDULER
from incomes_server.compression.client import CompressionClient
from incomes_server.compression.model import QueueLimits
from incomes_server.store.calls import ACTOR_NAME as STORE
from incomes_server.store.client import StoreClient
from incomes_server.store.core import EditStore
from incomes_server.store.ray_call import find_actor

FIGURES = pytest.StashKey[list[str]]()


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/edits.db"


@pytest.fixture
def store(database_url: str) -> Iterator[EditStore]:
    store = EditStore(database_url)
    yield store
    store.close()


@dataclass(frozen=True)
class Stack:
    """A store and a scheduler of their own, in the session's Ray; shared by the tests of one module."""

    settings: RaySettings
    store: StoreClient
    compression: CompressionClient

    async def pid_of(self, client: Any) -> int:
        """Process of the actor behind a client."""
        return int(await client._actor.__ray_call__.remote(lambda _: os.getpid()))

    async def kill(self, client: Any) -> int:
        """kill -9 that process; Ray starts another one."""
        pid = await self.pid_of(client)
        os.kill(pid, signal.SIGKILL)
        return pid

    def core(self) -> EditStore:
        """The same database, opened beside the actor."""
        return EditStore(self.settings.database_url, masters=self.settings.masters)


def keep_coverage(actor: Any) -> None:
    """With `make coverage`: let an actor write down which lines it has run. Ray ends it without giving it time to."""
    import ray

    def save(_: object) -> bool:
        from coverage import Coverage

        running = Coverage.current()
        if running:
            running.save()
        return running is not None

    if "COVERAGE_PROCESS_CONFIG" in os.environ:
        assert ray.get(actor.__ray_call__.remote(save))


@pytest.fixture(scope="session")
def local_ray() -> Iterator[RaySettings]:
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as temp_dir:
        settings = RaySettings(f"sqlite:///{temp_dir}/edits.db", temp_dir=Path(temp_dir))
        start_ray(settings)
        yield settings
        stop_ray()


@pytest.fixture(scope="module")
def limits() -> QueueLimits:
    """Modules override it."""
    return QueueLimits(sweep_s=0.3)


@pytest.fixture(scope="module")
def masters() -> tuple[MasterKey, ...]:
    """Master keys of the module's store; modules override it."""
    return ()


@pytest.fixture(scope="module")
def stack(
    local_ray: RaySettings,
    tmp_path_factory: pytest.TempPathFactory,
    limits: QueueLimits,
    masters: tuple[MasterKey, ...],
) -> Iterator[Stack]:
    url = f"sqlite:///{tmp_path_factory.mktemp('store')}/edits.db"
    settings = replace(
        local_ray, database_url=url, namespace=f"test-{uuid.uuid4().hex[:8]}", limits=limits, masters=masters
    )
    yield from stack_on(settings)


def stack_on(settings: RaySettings) -> Iterator[Stack]:
    """The actors of these settings, killed at the end."""
    import ray

    create_actors(settings)
    actors = [find_actor(name, settings.namespace) for name in (STORE, SCHEDULER)]
    yield Stack(settings, StoreClient(actors[0]), CompressionClient(actors[1]))
    for actor in reversed(actors):
        keep_coverage(actor)
        ray.kill(actor)


@pytest.fixture
def project() -> str:
    """A tenant of the test's own."""
    return f"p-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Show a measured number at the end of the session."""
    return request.config.stash.setdefault(FIGURES, []).append


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    for line in config.stash.get(FIGURES, []):
        terminalreporter.write_line(f"measured: {line}")
