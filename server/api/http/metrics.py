"""Prometheus metrics of the server, prefix `incomes:`; `docs/metrics.md` lists them. No id and no text in a label."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from incomes_server.compression.client import CompressionClient
from incomes_server.edits.model import EditStatus
from incomes_server.edits.verbatim import VerbatimState
from incomes_server.store.client import StoreClient
from incomes_server.store.replica_table import ReplicaLag
from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from incomes_plugin.figures import BOUNDS_S, RoutingFigures

if TYPE_CHECKING:
    from incomes_plugin.vllm.status import EngineStatus

SHORT_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

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
REFUSALS = Counter("incomes:refusals", "Answers of both ports that are errors, by code.", ["code"])
STORE_S = Histogram(
    "incomes:store_seconds",
    "Writes and reads of the edit store, until their answer is there; a write is durable then.",
    ["call"],
    buckets=SHORT_S,
)
COMPRESSION_S = Histogram(
    "incomes:compression_seconds", "Batches of edits through the model, each until its gists are made.", buckets=SHORT_S
)
COMPARISON_S = Histogram(
    "incomes:comparison_seconds",
    "New edits of a set, until they are compared with those there.",
    buckets=SHORT_S,
)
COMMIT_S = Histogram(
    "incomes:commit_seconds", "Changes of an edit set, each until the engine's pool has it.", buckets=SHORT_S
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
POOL_DEVICE_BYTES = Gauge("incomes:pool_device_bytes", "Device memory of the engine's pool: route keys, picked edits.")
POOL_SNAPSHOTS = Gauge(
    "incomes:pool_snapshots", "Snapshots in the engine, older ones that requests still read included."
)
PINNED_REQUESTS = Gauge("incomes:pinned_requests", "Running requests that may read edits.")
REPLICAS = Gauge("incomes:replicas", "Engines that the store knows: `serving`, or still `catching_up`.", ["state"])
REPLICA_LAG = Gauge(
    "incomes:replica_lag_versions", "Versions of edit sets that the slowest serving engine has yet to apply."
)
REPLICA_SILENCE_S = Gauge("incomes:replica_silence_seconds", "Since the quietest serving engine was last heard of.")
VERBATIMS = Gauge("incomes:verbatims", "Verbatim edit versions by the state of their vectors.", ["state"])
VERBATIM_ANSWERS = Counter(
    "incomes:verbatim_answers",
    "Answers that a verbatim edit leads: how the text came (vectors, stored_text, unused), and why not from vectors.",
    ["source", "reason"],
)
VERBATIM_ANSWERS.labels("vectors", "")  # there before the first, as alerts want it
VERBATIM_MISMATCHES = Counter(
    "incomes:verbatim_mismatch", "Recalls whose vectors did not say the text: the stored text was given instead."
)
COMPRESSIONS = Gauge("incomes:compressions", "Outcomes of the compressor since its scheduler started.", ["outcome"])


def show_engine(status: EngineStatus) -> None:
    """Bring the gauges of the engine and its pool up to date."""
    usage = status.worker.pool
    POOL_CAPACITY_BYTES.set(usage.capacity_bytes)
    POOL_USED_BYTES.set(usage.used_bytes)
    POOL_EDITS.set(usage.edits)
    POOL_DEVICE_BYTES.set(usage.device_bytes_used)
    POOL_SNAPSHOTS.set(usage.snapshots)
    PINNED_REQUESTS.set(status.pinned_requests)
    ROUTING.figures = status.worker.routing


class RoutingCollector(Collector):
    """What the engine counts in its own process; the totals come with its status."""

    def __init__(self) -> None:
        self.figures = RoutingFigures()

    def describe(self) -> Iterable[Metric]:
        """Names are known before the engine runs."""
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        """The newest totals."""
        figures = self.figures
        bounds = [*map(str, BOUNDS_S), "+Inf"]
        yield HistogramMetricFamily(
            "incomes:routing_seconds",
            "Choosing the edits of one request.",
            buckets=list(zip(bounds, accumulate(figures.buckets), strict=True)),
            sum_value=figures.seconds,
        )
        routed = CounterMetricFamily(
            "incomes:routed_requests",
            "Requests with edits to choose from: `read` picked some, `none` did not.",
            labels=["outcome"],
        )
        routed.add_metric(["read"], figures.read)
        routed.add_metric(["none"], figures.routed - figures.read)
        yield routed


ROUTING = RoutingCollector()
REGISTRY.register(ROUTING)


def observe_store(call: str, seconds: float) -> None:
    """Count a write or a read of the store."""
    STORE_S.labels(call).observe(seconds)


def show_replicas(lags: Sequence[ReplicaLag]) -> None:
    """Bring the gauges of the replicas up to date."""
    serving = [lag for lag in lags if lag.serving]
    REPLICAS.labels("serving").set(len(serving))
    REPLICAS.labels("catching_up").set(len(lags) - len(serving))
    REPLICA_LAG.set(max((lag.versions for lag in serving), default=0))
    REPLICA_SILENCE_S.set(max((lag.idle_s for lag in serving), default=0.0))


async def refresh(store: StoreClient, queue: CompressionClient) -> None:
    """Bring the gauges of store and queue up to date; called when the admin port's /metrics is read."""
    counts, stats = await store.counts(), await queue.stats()
    show_replicas(await store.lag())
    for status in EditStatus:  # one that no edit has any more is 0, not what it was
        EDITS.labels(status).set(counts.edits.get(status, 0))
    for state in VerbatimState:
        VERBATIMS.labels(state).set(counts.verbatims.get(state, 0))
    EDIT_SETS.set(counts.edit_sets)
    GIST_BYTES.set(counts.gist_bytes)
    for lane in ("interactive", "bulk", "leased"):
        QUEUE_DEPTH.labels(lane).set(getattr(stats, lane))
    for outcome in ("completed", "failed", "retried"):
        COMPRESSIONS.labels(outcome).set(getattr(stats, outcome))
