"""Shared by the server's tests: a store on disk, and one local Ray for the whole session."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from incomes_server.compression.client import CompressionClient
from incomes_server.compression.model import QueueLimits
from incomes_server.ray_local import RaySettings, create_actors, prepare_environment, start_ray, stop_ray
from incomes_server.store.client import StoreClient
from incomes_server.store.core import EditStore

prepare_environment()

hypothesis.settings.register_profile("shared-machine", deadline=None)
hypothesis.settings.load_profile("shared-machine")


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
    """A store and a scheduler of their own, in the session's Ray."""

    settings: RaySettings
    store: StoreClient
    compression: CompressionClient

    def pid_of(self, client: Any) -> int:
        """Process of the actor behind a client."""
        from ray.util.state import get_actor

        return get_actor(client._actor._actor_id.hex()).pid

    def core(self) -> EditStore:
        """The same database, opened beside the actor."""
        return EditStore(self.settings.database_url)


@pytest.fixture(scope="session")
def local_ray() -> Iterator[RaySettings]:
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as temp_dir:
        settings = RaySettings(f"sqlite:///{temp_dir}/edits.db", temp_dir=Path(temp_dir))
        start_ray(settings)
        yield settings
        stop_ray()


@pytest.fixture
def limits() -> QueueLimits:
    """Tests override it."""
    return QueueLimits(sweep_s=0.3)


@pytest.fixture
async def stack(local_ray: RaySettings, database_url: str, limits: QueueLimits) -> AsyncIterator[Stack]:
    import ray

    settings = replace(local_ray, database_url=database_url, namespace=f"test-{uuid.uuid4().hex[:8]}", limits=limits)
    create_actors(settings)
    store = await StoreClient.connect(settings.namespace)
    compression = await CompressionClient.connect(settings.namespace)
    yield Stack(settings, store, compression)
    for client in (compression, store):
        ray.kill(client._actor)
