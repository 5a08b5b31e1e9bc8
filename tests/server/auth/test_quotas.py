"""Limits of a project: from the settings, or an equal part of the pool."""

import pytest
from incomes_server.auth.quotas import RunningRequests
from incomes_server.settings import Settings

from incomes_plugin.errors import QuotaExceeded


def test_projects_share_the_pool_equally():
    assert Settings(pool_bytes=8000).quotas.gist_bytes == 7000
    assert Settings(pool_bytes=8000, api_keys=("a:1", "a:2", "b:3")).quotas.gist_bytes == 3500
    assert Settings(pool_bytes=8000, max_gist_bytes_per_project=100).quotas.gist_bytes == 100


def test_running_requests_end_however_they_end():
    running = RunningRequests(Settings(max_running_requests_per_project=1).quotas)
    with running.of("b"), running.of("a"), pytest.raises(QuotaExceeded, match="1 of at most 1 running requests"):
        running.of("a").__enter__()
    with pytest.raises(KeyError), running.of("a"):
        raise KeyError
    with running.of("a"):
        pass
