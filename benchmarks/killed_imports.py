"""One large import that is killed on its way: is each line imported once, and what does it cost?

The tiny model of the tests, a real `incomes serve`. kill -9 of the server and all its processes at even shares of the
import; the next server goes on by itself. Memory is the sum of the proportional set sizes (PSS) of all its processes.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from incomes_server.api.admin.batch_schemas import BatchObject
from incomes_server.api.admin.exports import digest_of
from incomes_server.cli.server_process import ServerProcess, server_process
from incomes_server.client import Client
from incomes_server.edits.batch import ENDED

from benchmarks.server import environment
from tests.tiny_model import write_tiny_model

LOOK_S = 1.0
GONE_S = 60.0
VLLM_FLAGS = ("--", "--max-model-len", "512", "--dtype", "float32")


@dataclass
class Memory:
    """Peaks of PSS in MiB: of all processes at once, and of each command by itself."""

    total_mib: float = 0.0
    by_command: dict[str, float] = field(default_factory=dict)

    def look(self, pid: int) -> None:
        """Measure once."""
        now: dict[str, float] = {}
        for process in tree(pid):
            with suppress(psutil.Error):
                name = process.name()[:40]
                now[name] = now.get(name, 0.0) + process.memory_full_info().pss / 2**20
        self.total_mib = max(self.total_mib, sum(now.values()))
        self.by_command = {
            name: max(now.get(name, 0.0), self.by_command.get(name, 0.0)) for name in now | self.by_command
        }

    @contextmanager
    def watched(self, pid: int) -> Iterator[None]:
        """Measure every few seconds, in a thread."""
        stop = threading.Event()

        def watch() -> None:
            while not stop.wait(2 * LOOK_S):
                with suppress(psutil.Error):
                    self.look(pid)

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def measure(folder: Path, count: int, kills: int) -> dict[str, object]:
    """Import, kill, go on; then start once more with everything there.

    Raises:
        RuntimeError: a line is missing, or there twice, or says something else.
    """
    model, file = folder / "model", folder / "facts.jsonl"
    write_tiny_model(model)
    wanted = write_facts(file, count)
    args = ("--adapter", str(model / "adapter"), *VLLM_FLAGS)
    memory, starts, at_kill, spent_s = Memory(), [], [], 0.0
    batch_id = ""
    limits = {"INCOMES_POOL_BYTES": "8GiB", "INCOMES_MAX_EDITS_PER_PROJECT": str(2 * count), "OMP_NUM_THREADS": "1"}
    with environment(**limits):
        for turn in range(kills + 1):
            start_s = time.perf_counter()
            with server_process(folder, lambda _: None, model=str(model), args=args) as server:
                starts.append(time.perf_counter() - start_s)
                with memory.watched(server.process.pid), Client(server.admin_url, retries=5) as client:
                    began_s = time.perf_counter()
                    batch_id = batch_id or client.batches.create(client.files.upload(file).id).id
                    batch = until(client, batch_id, count * (turn + 1) // (kills + 1) if turn < kills else None)
                    spent_s += time.perf_counter() - began_s
                    if turn < kills:
                        at_kill.append(batch.request_counts.completed)
                        kill(server)
                        continue
                    found = check(client, batch, count, wanted)
        start_s = time.perf_counter()
        with server_process(folder, lambda _: None, model=str(model), args=args) as server:
            last_start_s = time.perf_counter() - start_s
            memory.look(server.process.pid)
    return {
        "edits": count,
        "kills": kills,
        "imported_at_each_kill": at_kill,
        **found,
        "import_s_without_starts": round(spent_s, 1),
        "ms_an_edit": round(1e3 * spent_s / count, 3),
        "start_s_empty": round(starts[0], 1),
        "start_s_after_each_kill": [round(seconds, 1) for seconds in starts[1:]],
        "start_s_with_all_edits": round(last_start_s, 1),
        "peak_pss_mib": round(memory.total_mib),
        "peak_pss_mib_by_command": {name: round(mib) for name, mib in sorted(memory.by_command.items())},
        "database_mib": round(sum(path.stat().st_size for path in folder.glob("edits.db*")) / 2**20),
    }


def write_facts(file: Path, count: int) -> int:
    """So many different lines; the hash that their set must have."""
    total = 0
    with file.open("w") as lines:
        for number in range(count):
            body = {"text": f"Part {number:07d} weighs {number * 7919 % 9973} grams."}
            lines.write(json.dumps({"custom_id": f"c{number}", **body}) + "\n")
            total += digest_of(body)
    return total % 2**256


def until(client: Client, batch_id: str, lines: int | None) -> BatchObject:
    """Wait until so many lines are done; None: until the import has ended."""
    while True:
        batch = client.batches.get(batch_id)
        counts = batch.request_counts
        sys.stderr.write(f"\r{batch.status} {counts.completed + counts.failed} of {counts.total}   ")
        if batch.status in ENDED or (lines is not None and counts.completed + counts.failed >= lines):
            return batch
        time.sleep(LOOK_S)


def check(client: Client, batch: BatchObject, count: int, wanted: int) -> Mapping[str, Any]:
    """Every line once: by the counts, by the file of results, and by the hash of what the set says."""
    done = [json.loads(line) for line in client.files.content(batch.output_file_id)] if batch.output_file_id else []
    digest = client.edit_sets.digest("default")
    found = {
        "completed": batch.request_counts.completed,
        "failed": batch.request_counts.failed,
        "lines_of_results": len(done),
        "different_custom_ids": len({line["custom_id"] for line in done}),
        "different_edits": len({line["response"]["body"]["id"] for line in done}),
        "edits_in_the_set": digest.num_edits,
    }
    right = {**dict.fromkeys(found, count), "failed": 0}
    if found != right or digest.content_sha256 != f"{wanted:064x}":
        raise RuntimeError(f"not every line once: {found}, hash {digest.content_sha256}, wanted {wanted:064x}")
    return {**found, "content_is_that_of_the_file": True}


def kill(server: ServerProcess) -> None:
    """kill -9 of the server and whatever it started."""
    processes = tree(server.process.pid)
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    server.process.wait()
    _, alive = psutil.wait_procs(processes, timeout=GONE_S)
    if alive:
        raise RuntimeError(f"still there {GONE_S:g} s after kill -9: {alive}")


def tree(pid: int) -> list[psutil.Process]:
    """The process and all that descend from it."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
