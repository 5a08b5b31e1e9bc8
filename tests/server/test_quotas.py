"""Limits of a project: from the settings, or an equal part of the pool."""

import pytest
from incomes_server.quotas import Quotas, RunningRequests
from incomes_server.settings import Settings

from incomes_plugin.errors import QuotaExceeded


def test_projects_share_the_pool_equally():
    assert Quotas.of(Settings(pool_bytes=8000)).gist_bytes == 7000
    assert Quotas.of(Settings(pool_bytes=8000, api_keys=("a:1", "a:2", "b:3"))).gist_bytes == 3500
    assert Quotas.of(Settings(pool_bytes=8000, max_gist_bytes_per_project=100)).gist_bytes == 100


def test_running_requests_end_however_they_end():
    running = RunningRequests(Quotas.of(Settings(max_running_requests_per_project=1)))
    with running.of("b"), running.of("a"), pytest.raises(QuotaExceeded, match="1 of at most 1 running requests"):
        running.of("a").__enter__()
    with pytest.raises(KeyError), running.of("a"):
        raise KeyError
    with running.of("a"):
        pass
