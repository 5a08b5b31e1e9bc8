"""`python -m benchmarks.imports --out FILE`: does an edit of a large import cost more than one of a small import?

A real `incomes serve` on the default base. Imports of both sizes follow each other, each into a set of its own, until
all edits are active: seconds of the clock, and of the processor over all processes of the server, which says the same
on a busy machine.

With `--count 100000 [--kills 3]`: one import of so many edits with the tiny model, killed on its way
(`killed_imports.py`).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from statistics import median

import httpx
import psutil
from incomes_server.cli.server_process import server_process

from benchmarks import killed_imports
from benchmarks.server import IMPORT_TIMEOUT_S, environment, fill
from incomes_plugin.lab.data.facts import FactSource
from incomes_plugin.lab.provenance import provenance

SMALL, LARGE = 500, 5000
MOST_RATIO = 1.3
SEED = 12


def main(argv: list[str]) -> int:
    """Measure, write the results file; status 1 where the ratio is beyond the promise."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.imports", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, help="edits of one import that is killed on its way")
    parser.add_argument("--kills", type=int, default=3)
    args = parser.parse_args(argv)
    result = provenance(f"python -m benchmarks.imports {' '.join(argv)}")
    with tempfile.TemporaryDirectory(prefix="incomes-imports-") as folder:
        result |= killed_imports.measure(Path(folder), args.count, args.kills) if args.count else measure(Path(folder))
    args.out.write_text(json.dumps(result, indent=2) + "\n")
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    return int(not args.count and result["ratio_of_the_clock"] > MOST_RATIO)  # type: ignore[operator]


def measure(folder: Path) -> dict[str, object]:
    """Small, large and small imports in turn; a warm one before."""
    facts = [fact.statement for fact in FactSource(SEED, held_out=False).distinct(LARGE + 3 * SMALL)]
    runs: list[dict[str, float]] = []
    with (
        environment(OMP_NUM_THREADS="1"),
        server_process(folder, lambda _: None) as server,
        httpx.Client(base_url=server.admin_url, timeout=2 * IMPORT_TIMEOUT_S + 30) as client,
    ):
        for turn, count in enumerate((SMALL, SMALL, LARGE, SMALL)):
            some, facts = facts[:count], facts[count:]
            before_s = processor_s(server.process.pid)
            clock_s = fill(client, some, f"turn-{turn}")
            spent_s = processor_s(server.process.pid) - before_s
            runs += [
                {"edits": count, "ms_an_edit": 1e3 * clock_s / count, "processor_ms_an_edit": 1e3 * spent_s / count}
            ]
    return {
        "runs": runs[1:],
        "ratio_of_the_clock": round(ratio(runs[1:], "ms_an_edit"), 3),
        "ratio_of_the_processor": round(ratio(runs[1:], "processor_ms_an_edit"), 3),
    }


def ratio(runs: list[dict[str, float]], figure: str) -> float:
    """Of an edit of the large import to one of the small ones."""
    small = median(run[figure] for run in runs if run["edits"] == SMALL)
    return median(run[figure] for run in runs if run["edits"] == LARGE) / small


def processor_s(pid: int) -> float:
    """Seconds that the server and what it has started have used the processor."""
    total = 0.0
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
