"""A real `incomes serve` over HTTP: start time, bulk import, and how long an added edit takes to be active.

The edit sets of all sizes live on one server and get their adds in turn, so that growth with N cannot hide in noise.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from incomes_server.cli.server_process import server_process

from benchmarks.stats import percentile, summary
from incomes_plugin.lab.data.facts import FactSource

POOL_BYTES = "2GiB"
SEED = 11
IMPORT_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class ServerWork:
    """Sizes of the edit sets, adds to each, warm starts, and further arguments of `incomes serve`."""

    present: tuple[int, ...] = (10, 1000, 5000)
    adds: int = 50
    warm_starts: int = 2
    args: tuple[str, ...] = ()


def measure(folder: Path, work: ServerWork, progress: Callable[[str], None]) -> dict[str, object]:
    """Start the server cold and warm; on the last one, import and add."""
    starts: list[float] = []
    with environment(INCOMES_POOL_BYTES=POOL_BYTES, VLLM_CACHE_ROOT=str(folder / "cache"), OMP_NUM_THREADS="1"):
        for turn in range(work.warm_starts):
            with started(folder / f"start{turn}", work, starts):
                progress(f"server start {turn}: {starts[-1]:.1f} s")
        with started(folder / "last", work, starts) as admin_url:
            progress(f"server start {work.warm_starts}: {starts[-1]:.1f} s")
            with httpx.Client(base_url=admin_url, timeout=IMPORT_TIMEOUT_S + 30) as client:
                latency = add_to_active(client, work, progress)
    return {"start_cold_s": round(starts[0], 1), "start_warm_s": summary(starts[1:], 1), **latency}


@contextmanager
def started(folder: Path, work: ServerWork, seconds: list[float]) -> Iterator[str]:
    """A ready server with an empty store; appends the seconds it took to be ready, yields its admin address."""
    folder.mkdir(parents=True)
    start_s = time.perf_counter()
    with server_process(folder, lambda _: None, args=work.args) as server:
        seconds.append(time.perf_counter() - start_s)
        yield server.admin_url


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """Environment variables for the servers started inside the block."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def add_to_active(client: httpx.Client, work: ServerWork, progress: Callable[[str], None]) -> dict[str, object]:
    """Fill one edit set per size, then add to them in turn."""
    imports: dict[int, float] = {}
    needed = max(work.present) + len(work.present) * (work.adds + 2)
    facts = [fact.statement for fact in FactSource(SEED, held_out=False).distinct(needed)]
    fresh = iter(facts[max(work.present) :])
    for count in work.present:
        imports[count] = fill(client, facts[:count], set_name(count))
        progress(f"imported {count} edits in {imports[count]:.1f} s")
    milliseconds: dict[int, list[float]] = {count: [] for count in work.present}
    edit: dict[str, float] = {}
    for turn in range(-2, work.adds):
        for count in work.present:
            spent_ms, edit = add(client, set_name(count), next(fresh))
            if turn >= 0:
                milliseconds[count].append(spent_ms)
    progress("adds done")
    largest = max(work.present)
    return {
        "add_to_active_ms": {str(n): latency(values) for n, values in milliseconds.items()},
        "p95_ratio_largest_to_smallest": round(
            percentile(milliseconds[largest], 95) / percentile(milliseconds[min(work.present)], 95), 3
        ),
        "import_edits_per_s": round(largest / imports[largest], 1),
        "imported_edits": largest,
        "bytes_per_edit": edit["gist_bytes"],
        "tokens_per_edit": edit["num_tokens"],
    }


def set_name(count: int) -> str:
    """Edit set that holds `count` edits before the adds."""
    return f"present-{count}"


def fill(client: httpx.Client, facts: Sequence[str], name: str) -> float:
    """Import `facts` into a new set of that name; seconds until all are active.

    Raises:
        RuntimeError: not every line became active.
    """
    count = len(facts)
    client.post("/v1/edit_sets", json={"name": name}).raise_for_status()
    lines = [json.dumps({"custom_id": f"c{i}", "text": text}) for i, text in enumerate(facts)]
    query = {"edit_set": name, "wait": "active", "timeout_s": str(IMPORT_TIMEOUT_S)}
    start_s = time.perf_counter()
    answer = client.post("/v1/edits/import", params=query, content="\n".join(lines).encode())
    seconds = time.perf_counter() - start_s
    answer.raise_for_status()
    counts, reached = answer.json()["request_counts"], answer.json()["reached"]
    if counts["completed"] != count or reached != "active":
        raise RuntimeError(f"import of {count} edits: {counts}, reached {reached}")
    return seconds


def add(client: httpx.Client, edit_set: str, text: str) -> tuple[float, dict[str, float]]:
    """Add one edit and wait until it is active; milliseconds, and the edit.

    Raises:
        RuntimeError: the answer came before the edit was active.
    """
    body = {"text": text, "edit_set": edit_set}
    start_s = time.perf_counter()
    answer = client.post("/v1/edits", params={"wait": "active"}, json=body)
    spent_ms = 1000 * (time.perf_counter() - start_s)
    answer.raise_for_status()
    if answer.json()["reached"] != "active":
        raise RuntimeError(f"{edit_set}: reached {answer.json()['reached']} only")
    return spent_ms, answer.json()


def latency(milliseconds: list[float]) -> dict[str, float]:
    """p50, p95 and the extremes."""
    return {
        "p50": round(percentile(milliseconds, 50), 1),
        "p95": round(percentile(milliseconds, 95), 1),
        "min": round(min(milliseconds), 1),
        "max": round(max(milliseconds), 1),
        "adds": len(milliseconds),
    }
