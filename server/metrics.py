"""Prometheus metrics of the server, prefix `incomes:`; `docs/metrics.md` lists them. No id and no text in a label."""

from __future__ import annotations

from collections.abc import Mapping

from incomes_server.compression.client import CompressionClient
from incomes_server.store.client import StoreClient
from prometheus_client import Counter, Gauge, Histogram

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
READY = Gauge("incomes:ready", "1 when every start-up stage is good and no part is lost.")
EDITS = Gauge("incomes:edits", "Edit versions by status.", ["status"])
EDIT_SETS = Gauge("incomes:edit_sets", "Edit sets of all projects.")
GIST_BYTES = Gauge("incomes:gist_bytes", "Bytes of all gists in the newest snapshots.")
QUEUE_DEPTH = Gauge("incomes:compression_queue_depth", "Edits that wait for compression.", ["lane"])
GATE_TOKENS = Gauge(
    "incomes:fact_gate_tokens",
    "Tokens with edits since the engine started, by what the fact gate said: none, few (candidates of the memory), or "
    "exact (all entries were searched: the edit set is too small for the memory to be worth it).",
    ["answer"],
)
GATE_ENTRIES = Gauge(
    "incomes:fact_gate_entries",
    "Gist entries of the newest snapshots by where they are found: memory, or the list that every token searches, "
    "because they did not read back (unread) or their unit was full (full).",
    ["found"],
)
COMPRESSIONS = Gauge("incomes:compressions", "Outcomes of the compressor since its scheduler started.", ["outcome"])


def show_fact_gate(counts: Mapping[str, int]) -> None:
    """Bring the gauges of the fact gate up to date, from `EngineStatus.fact_gate`."""
    for name, number in counts.items():
        if name.startswith("tokens_"):
            GATE_TOKENS.labels(name.removeprefix("tokens_")).set(number)
        else:
            GATE_ENTRIES.labels(name).set(number)


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
