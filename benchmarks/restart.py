"""How long a store of many edits takes to open and to be read by a replica that starts, before and after compaction.

`python -m benchmarks.restart --edits 100000 --out benchmarks/results/restart.json`. Each edit is replaced `--replaced`
times, so the log has more than what is still there. Gists are as small as those of the tiny model.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from incomes_server.edits import NewEdit
from incomes_server.store import commands
from incomes_server.store.check import problems
from incomes_server.store.core import EditStore, heads_of
from incomes_server.store.log import read_delta
from incomes_server.store.schema import log
from sqlalchemy import func, select

from incomes_plugin.gist import Gist, dump_gists
from incomes_plugin.gist.edit import Captured
from incomes_plugin.gist.types import Packed
from incomes_plugin.lab.provenance import provenance

BATCH = 256


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edits", type=int, default=100_000)
    parser.add_argument("--replaced", type=int, default=1, help="times that each edit is replaced")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    command = "python -m benchmarks.restart " + shlex.join(sys.argv[1:])
    with tempfile.TemporaryDirectory(prefix="restart") as folder:
        result = {**provenance(command), **measure(f"sqlite:///{folder}/edits.db", args.edits, args.replaced)}
    text = json.dumps(result, indent=1) + "\n"
    if args.out:
        args.out.write_text(text)
    sys.stdout.write(text)


def measure(url: str, edits: int, replaced: int) -> dict[str, object]:
    """Fill, restart, compact, restart."""
    store = EditStore(url)
    edit_set = store.write(commands.EnsureEditSet("p", "default")).id
    start_s = time.monotonic()
    ids: list[str] = []
    for first in range(0, edits, BATCH):
        new = tuple(
            NewEdit(f"The warranty of pump {i} is {i} months.", (1, 2)) for i in range(first, min(edits, first + BATCH))
        )
        ids += [edit.id for edit in store.write(commands.AddEdits("p", f"add {first}", "default", new))]
    for version in range(1, replaced + 2):
        for part in parts(ids):
            if version > 1:
                store.commit(
                    [
                        commands.ReplaceEdit("p", f"{edit_id} {version}", edit_id, NewEdit("Another text.", (1, 2)))
                        for edit_id in part
                    ]
                )
            store.write(commands.RecordOutcomes(tuple(Captured(i, version, blob(i, version)) for i in part)))
    filled_s = time.monotonic() - start_s
    store.close()
    before = restart(url, edit_set)
    compaction = compact(url, edit_set)
    after = restart(url, edit_set)
    return {"edits": edits, "replaced": replaced, "filled_s": round(filled_s, 1), "before": before} | {
        "compaction": compaction,
        "after": after,
    }


def parts(ids: list[str]) -> Iterator[list[str]]:
    """Batches."""
    for first in range(0, len(ids), BATCH):
        yield ids[first : first + BATCH]


def blob(edit_id: str, version: int) -> bytes:
    """A gist of two tokens."""
    rows = torch.ones(2, 16)
    return dump_gists([Gist(edit_id, version, Packed.of(rows), Packed.of(rows))], "mf_benchmark")


def restart(url: str, edit_set: str) -> dict[str, object]:
    """Open the store as its actor does, then read it as a replica that starts."""
    start_s = time.monotonic()
    store = EditStore(url)
    head = store.read(heads_of)[edit_set].version
    opened_s = time.monotonic() - start_s
    position, pages, gists, size = 0, 0, 0, 0
    while position < head:
        delta = store.read(read_delta, edit_set, position)
        position, pages, gists = delta.snapshot.version, pages + 1, gists + len(delta.added)
        size += sum(map(len, delta.added))
    read_s = time.monotonic() - start_s - opened_s
    rows = store.read(lambda conn: conn.scalar(select(func.count()).select_from(log)))
    store.close()
    return {
        "open_s": round(opened_s, 3),
        "read_s": round(read_s, 2),
        "pages": pages,
        "gists": gists,
        "gist_bytes": size,
        "log_rows": rows,
    }


def compact(url: str, edit_set: str) -> dict[str, object]:
    """All steps, each a transaction that others wait for."""
    store, steps = EditStore(url), []
    more = True
    while more:
        start_s = time.monotonic()
        more = store.write(commands.Compact(edit_set, 2**62))
        steps.append(time.monotonic() - start_s)
    whole = store.read(problems) == []
    store.close()
    steps.sort()
    return {
        "seconds": round(sum(steps), 1),
        "steps": len(steps),
        "step_p50_ms": round(1000 * steps[len(steps) // 2], 1),
        "step_p99_ms": round(1000 * steps[int(len(steps) * 0.99)], 1),
        "step_max_ms": round(1000 * steps[-1], 1),
        "whole": whole,
    }


if __name__ == "__main__":
    main()
