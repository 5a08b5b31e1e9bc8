"""The store's tests run on both databases: `database_url` is a fresh one of each."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from incomes_server.boot.actors import RaySettings
from incomes_server.compression.model import QueueLimits

from tests.server.conftest import Stack, stack_on

DATABASES = ("sqlite", "postgresql")


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """For what only SQLite has."""
    return f"sqlite:///{tmp_path}/edits.db"


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest, sqlite_url: str) -> Iterator[str]:
    with ExitStack() as opened:
        is_sqlite = request.param == "sqlite"
        yield sqlite_url if is_sqlite else opened.enter_context(request.getfixturevalue("postgres").database())


@pytest.fixture(scope="module", params=DATABASES)
def stack(
    request: pytest.FixtureRequest,
    local_ray: RaySettings,
    tmp_path_factory: pytest.TempPathFactory,
    limits: QueueLimits,
) -> Iterator[Stack]:
    with ExitStack() as opened:
        url = f"sqlite:///{tmp_path_factory.mktemp('store')}/edits.db"
        if request.param == "postgresql":
            url = opened.enter_context(request.getfixturevalue("postgres").database())
        namespace = f"test-{uuid.uuid4().hex[:8]}"
        yield from stack_on(replace(local_ray, database_url=url, namespace=namespace, limits=limits))
