"""Prometheus metrics of the server, prefix `incomes:`; `docs/metrics.md` lists them. No id and no text in a label."""

from __future__ import annotations

from typing import TYPE_CHECKING

from incomes_server.compression.client import CompressionClient
from incomes_server.store.client import StoreClient
from prometheus_client import Counter, Gauge, Histogram

if TYPE_CHECKING:
    from incomes_plugin.pool.gists import PoolUsage

GENERATIONS = Counter(
    "incomes:generations",
    "Requests of the generation routes: why this snapshot (reason), and whether it was refused (code of the error).",
    ["reason", "refused"],
)
ACTIVATION_S = Histogram(
    "incomes:activation_seconds",
    "From the arrival of an added, replaced or retired edit to its acknowledgement by every live replica.",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
QUEUE_OVERFLOWS = Counter(
    "incomes:compression_queue_overflows",
    "Admitted edits that found the queue full and wait for its sweep of the store, behind bulk imports.",
)
READY = Gauge("incomes:ready", "1 when every start-up stage is good and no part is lost.")
REFUSED_CHANGES = Gauge("incomes:refused_changes", "Edit sets with a change that this engine refuses.")
EDITS = Gauge("incomes:edits", "Edit versions by status.", ["status"])
EDIT_SETS = Gauge("incomes:edit_sets", "Edit sets of all projects.")
GIST_BYTES = Gauge("incomes:gist_bytes", "Bytes of all gists in the newest snapshots.")
QUEUE_DEPTH = Gauge("incomes:compression_queue_depth", "Edits that wait for compression.", ["lane"])
POOL_CAPACITY_BYTES = Gauge("incomes:pool_capacity_bytes", "Host memory that the engine's gist pool may use.")
POOL_USED_BYTES = Gauge("incomes:pool_used_bytes", "Bytes of all gists in the engine's pool, route keys included.")
POOL_EDITS = Gauge("incomes:pool_edits", "Gists in the engine's pool, those of older snapshots in use included.")
COMPRESSIONS = Gauge("incomes:compressions", "Outcomes of the compressor since its scheduler started.", ["outcome"])


def show_pool(usage: PoolUsage) -> None:
    """Bring the gauges of the engine's pool up to date."""
    POOL_CAPACITY_BYTES.set(usage.capacity_bytes)
    POOL_USED_BYTES.set(usage.used_bytes)
    POOL_EDITS.set(usage.edits)


async def refresh(store: StoreClient, queue: CompressionClient) -> None:
    """Bring the gauges of store and queue up to date; called when the admin port's /metrics is read."""
    counts, stats = await store.counts(), await queue.stats()
    for status, number in counts.edits.items():
        EDITS.labels(status).set(number)
    EDIT_SETS.set(counts.edit_sets)
    GIST_BYTES.set(counts.gist_bytes)
    for lane in ("interactive", "bulk", "leased"):
        QUEUE_DEPTH.labels(lane).set(getattr(stats, lane))
    for outcome in ("completed", "failed", "retried"):
        COMPRESSIONS.labels(outcome).set(getattr(stats, outcome))
