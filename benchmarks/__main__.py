"""`python -m benchmarks [--quick] [--only throughput bulk server] [--selection routed|dense] [--out DIR]`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import bulk, server, throughput
from benchmarks.engines import EngineProcess, EngineSpec
from benchmarks.gate import Gate
from benchmarks.model import QUICK, Size, write_model
from benchmarks.report import markdown
from benchmarks.server import ServerWork
from benchmarks.throughput import Variant, Workload
from incomes_plugin.lab.provenance import provenance

RESULTS = Path(__file__).parent / "results"
SECTIONS = ("throughput", "bulk", "server")
MAX_GISTS = 48
ENGINE_POOL_GISTS = "350000"


def main(argv: list[str]) -> int:
    """Run the sections and write serving.json and serving.md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="toy sizes: proves the harness, not the speed")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--out", type=Path, help="default: benchmarks/results; a quick run writes only where told")
    parser.add_argument("--gists", type=int, default=16, help="gists per edit, as many as the default model's")
    parser.add_argument("--rounds", type=int, default=Workload.rounds, help="of the throughput section")
    parser.add_argument("--selection", choices=("routed", "dense"), default="routed")
    args = parser.parse_args(argv)
    console, start_s = Console(stderr=True, highlight=False), time.perf_counter()

    def progress(line: str) -> None:
        console.print(f"[dim]{time.perf_counter() - start_s:6.0f} s[/dim]  {line}")

    result: dict[str, Any] = {**provenance(f"python -m benchmarks {' '.join(argv)}".strip()), "quick": args.quick}
    with tempfile.TemporaryDirectory(prefix="incomes-bench-") as folder:
        if {"throughput", "bulk"} & set(args.only):
            result |= engine_sections(Path(folder), args, progress)
        if "server" in args.only:
            result["server"] = server.measure(Path(folder), server_work(args.quick, Path(folder)), progress)
    result["seconds"] = round(time.perf_counter() - start_s)
    out = args.out or (None if args.quick else RESULTS)
    if out:
        write(result, out)
    sys.stdout.write(markdown(result))
    return 0


def engine_sections(folder: Path, args: argparse.Namespace, progress: Callable[[str], None]) -> dict[str, Any]:
    """Throughput and bulk: both engines up at once, one working at a time."""
    size = QUICK if args.quick else Size()
    routed = args.selection == "routed"
    adapter = write_model(folder / "model", size, MAX_GISTS, routed=routed)
    progress("model written")
    os.environ["INCOMES_POOL_GISTS"] = ENGINE_POOL_GISTS
    found: dict[str, Any] = {}
    with (
        EngineProcess(EngineSpec(folder / "model", edits=False)) as stock,
        EngineProcess(EngineSpec(folder / "model", edits=True)) as edited,
    ):
        progress("engines started")
        if "throughput" in args.only:
            work = Workload(rounds=1, batch=2, output_tokens=8) if args.quick else Workload(rounds=args.rounds)
            found["throughput"] = {
                "selection": args.selection + (", a token that reads reads four edits" if routed else ""),
                "model": model_facts(folder / "model", size, adapter.shape.bytes_per_gist),
                "workload": asdict(work),
                "variants": throughput.measure(
                    stock, edited, variants(args), work, Gate(folder / "model") if routed else None, progress
                ),
            }
        if "bulk" in args.only:
            work_bulk = bulk.BulkWork(rounds=1, edits=4) if args.quick else bulk.BulkWork()
            found["bulk"] = bulk.measure(stock, edited, adapter, work_bulk, progress)
    return found


def variants(args: argparse.Namespace) -> list[Variant]:
    """No edits; 100 to 10,000 of as many gists as the default model's; with dense selection 10,000 of one gist.

    With a router every token reads them, the dearest case; of the largest set also about one token in eight, as with a
    trained router, which reads where an answer stands.
    """
    routed = args.selection == "routed"
    if args.quick:
        return [Variant(0), Variant(20, args.gists, routed)]
    many = [Variant(edits, args.gists, routed) for edits in (100, 1000)]
    largest = [Variant(10_000, args.gists, True), Variant(10_000, args.gists)] if routed else [Variant(10_000)]
    return [Variant(0), *many, *largest]


def model_facts(folder: Path, size: Size, bytes_per_gist: Callable[[Any], int]) -> dict[str, object]:
    """What the throughput figures belong to."""
    import torch

    weights = sum(path.stat().st_size for path in folder.glob("model*.safetensors"))
    return {
        **asdict(size),
        "dtype": "bfloat16",
        "parameters_million": round(weights / 2 / 1e6),
        "bytes_per_gist": bytes_per_gist(torch.bfloat16),
    }


def server_work(quick: bool, folder: Path) -> ServerWork:
    """Sizes for the HTTP section, on the default model; a quick run serves the toy model."""
    if not quick:
        return ServerWork()
    write_model(folder / "toy", QUICK, MAX_GISTS)
    return ServerWork(present=(5, 50), adds=3, warm_starts=1, model=str(folder / "toy"))


def write(result: dict[str, Any], folder: Path) -> None:
    """Both files; a run of some sections has a name of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    sections = [name for name in SECTIONS if name in result]
    name = "serving" if len(sections) == len(SECTIONS) else "-".join(["serving", *sections])
    (folder / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    (folder / f"{name}.md").write_text(markdown(result))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
