"""Gauges that come from the engine."""

from types import SimpleNamespace

from incomes_server.api.http import metrics
from prometheus_client import REGISTRY


def test_the_pools_usage_becomes_gauges():
    metrics.show_pool(SimpleNamespace(capacity_bytes=3000, used_bytes=2000, edits=7))
    names = ("capacity_bytes", "used_bytes", "edits")
    assert [REGISTRY.get_sample_value(f"incomes:pool_{name}") for name in names] == [3000, 2000, 7]
