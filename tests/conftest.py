"""For every test: what must be settled before the first import of Ray (vLLM imports it), and one hypothesis profile."""

from __future__ import annotations

from collections.abc import Iterator

import hypothesis
import pytest
from incomes_server.boot.ray_local import prepare_ray_environment

prepare_ray_environment()

from tests.postgres import Cluster, serve_postgres  # noqa: E402 - behind what must come first

hypothesis.settings.register_profile("shared-machine", deadline=None)
hypothesis.settings.load_profile("shared-machine")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """PostgreSQL for this session."""
    with serve_postgres() as cluster:
        yield cluster
