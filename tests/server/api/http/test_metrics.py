"""Gauges that come from the engine and the store, and totals that the engine counts in its own process."""

from types import SimpleNamespace

from incomes_server.api.http import metrics
from incomes_server.compression.model import QueueStats
from incomes_server.store.counts import StoreCounts
from incomes_server.store.replica_table import ReplicaLag
from prometheus_client import REGISTRY

from incomes_plugin.figures import RoutingFigures
from incomes_plugin.pool.gists import PoolUsage
from incomes_plugin.vllm.status import EngineStatus, WorkerStatus


def value(name, **labels):
    return REGISTRY.get_sample_value(f"incomes:{name}", labels)


def status(routing):
    pool = PoolUsage(3000, 2000, held_bytes=2500, edits=7, snapshots=4, device_bytes_used=900)
    return EngineStatus(WorkerStatus("f", "0.32.0", "v1", (1,), 5, pool, routing), 3, {}, {})


def test_the_pools_usage_becomes_gauges():
    metrics.show_engine(status(RoutingFigures()))
    names = ("pool_capacity_bytes", "pool_used_bytes", "pool_edits", "pool_device_bytes", "pool_snapshots")
    assert [value(name) for name in names] == [3000, 2000, 7, 900, 4]
    assert value("pinned_requests") == 3


def test_what_routing_counts_becomes_a_histogram_and_shares():
    figures = RoutingFigures()
    for seconds, picks in ((0.0004, 0), (0.0005, 2), (0.02, 1), (9.0, 0)):
        figures.observe(seconds, picks)
    metrics.show_engine(status(figures))
    assert [value("routing_seconds_bucket", le=le) for le in ("0.0005", "0.01", "0.025", "+Inf")] == [2, 2, 3, 4]
    assert (value("routing_seconds_count"), value("routing_seconds_sum")) == (4, 9.0209)
    assert (value("routed_requests_total", outcome="read"), value("routed_requests_total", outcome="none")) == (2, 2)
    metrics.ROUTING.figures = RoutingFigures()


def test_the_slowest_serving_replica_counts():
    lags = [ReplicaLag("a", True, 2, 0.5), ReplicaLag("b", True, 7, 0.1), ReplicaLag("new", False, 900, 3.0)]
    metrics.show_replicas(lags)
    assert (value("replica_lag_versions"), value("replica_silence_seconds")) == (7, 0.5)
    assert (value("replicas", state="serving"), value("replicas", state="catching_up")) == (2, 1)
    metrics.show_replicas([])
    assert (value("replica_lag_versions"), value("replicas", state="serving")) == (0, 0)


def test_store_calls_are_timed_by_kind():
    before = value("store_seconds_count", call="write") or 0
    metrics.observe_store("write", 0.02)
    assert value("store_seconds_count", call="write") == before + 1


async def test_a_status_that_no_edit_has_any_more_is_none():
    found = {"pending": 3}

    async def answer(what):
        return what

    store = SimpleNamespace(counts=lambda: answer(StoreCounts(1, dict(found), 0, {})), lag=lambda: answer([]))
    queue = SimpleNamespace(stats=lambda: answer(QueueStats(0, 0, 0, 0, 0, 0)))
    await metrics.refresh(store, queue)
    found = {"ready": 3}
    await metrics.refresh(store, queue)
    assert (value("edits", status="pending"), value("edits", status="ready")) == (0, 3)
