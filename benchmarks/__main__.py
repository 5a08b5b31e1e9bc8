"""`python -m benchmarks [--quick] [--only throughput bulk rivals server] [--adapter DIR] [--out DIR]`, default base."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers import AutoTokenizer

from benchmarks import bulk, rivals, server, throughput
from benchmarks.adapters import ALWAYS, NEVER, with_threshold
from benchmarks.engines import EngineProcess, EngineSpec
from benchmarks.questions import asking, fact_set, facts
from benchmarks.report import markdown
from benchmarks.server import ServerWork
from benchmarks.throughput import Variant, Workload
from incomes_plugin.lab.provenance import provenance
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.model.resolve import Served, resolve

RESULTS = Path(__file__).parent / "results"
FACTS, QUICK_FACTS = (1000, 10_000), (50,)
"""Sizes of the edit sets that hold facts."""

SECTIONS = ("throughput", "bulk", "rivals", "server")


def main(argv: list[str]) -> int:
    """Run the sections and write serving.json and serving.md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes: proves the harness, not the speed")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--model", default="default", help="base: default, a folder, a hub id")
    parser.add_argument("--adapter", help="its edit adapter; the packaged one by default")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results; a quick run writes only where told")
    parser.add_argument("--rounds", type=int, default=Workload.rounds, help="of the throughput section")
    args = parser.parse_args(argv)
    console, start_s = Console(stderr=True, highlight=False), time.perf_counter()

    def progress(line: str) -> None:
        console.print(f"[dim]{time.perf_counter() - start_s:6.0f} s[/dim]  {line}")

    served = resolve(args.model, args.adapter)
    result: dict[str, Any] = {**provenance(f"python -m benchmarks {' '.join(argv)}".strip()), "quick": args.quick}
    result["base"] = served.base_dir.name
    with tempfile.TemporaryDirectory(prefix="incomes-bench-") as folder:
        if {"throughput", "bulk", "rivals"} & set(args.only):
            result |= engine_sections(Path(folder), served, args, progress)
        if "server" in args.only:
            result["server"] = server.measure(Path(folder), server_work(args.quick, served), progress)
    result["seconds"] = round(time.perf_counter() - start_s)
    out = args.out or (None if args.quick else RESULTS)
    if out:
        write(result, out)
    sys.stdout.write(markdown(result))
    return 0


def engine_sections(
    folder: Path, served: Served, args: argparse.Namespace, progress: Callable[[str], None]
) -> dict[str, Any]:
    """Throughput, bulk and rivals: all engines up at once, one working at a time."""
    adapter = EditAdapter.load(served.adapter_dir)
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        engines = {"stock": stack.enter_context(EngineProcess(EngineSpec(served.base_dir)))}
        for name, threshold in (("reading", ALWAYS), ("silent", NEVER)):
            changed = with_threshold(served.adapter_dir, folder / name, threshold)
            engines[name] = stack.enter_context(EngineProcess(EngineSpec(served.base_dir, changed)))
        engines["asking"] = stack.enter_context(EngineProcess(EngineSpec(served.base_dir, served.adapter_dir)))
        progress("engines started")
        tokenizer = AutoTokenizer.from_pretrained(served.base_dir)
        sizes = QUICK_FACTS if args.quick else FACTS
        if {"throughput", "rivals"} & set(args.only):
            texts = [list(tokenizer.encode(f.statement, add_special_tokens=False)) for f in facts(max(sizes))]
            engines["asking"].commit_facts(texts, {fact_set(size): size for size in sizes})
            progress(f"{len(texts):,} facts captured")
        if "throughput" in args.only:
            work = Workload(rounds=1, batch=2, output_tokens=8) if args.quick else Workload(rounds=args.rounds)
            found["throughput"] = {
                "base": served.base_dir.name,
                "bytes_per_token": adapter.shape.bytes_per_token,
                "most_picks": adapter.rules.most_picks,
                "workload": asdict(work),
                "variants": throughput.measure(
                    engines,
                    variants(args.quick),
                    work,
                    lambda number, tokens: asking(tokenizer, facts(min(sizes))[number], tokens, number),
                    progress,
                ),
            }
        if "bulk" in args.only:
            work_bulk = bulk.BulkWork(rounds=1, edits=4) if args.quick else bulk.BulkWork()
            found["bulk"] = bulk.measure(engines["stock"], engines["silent"], adapter, work_bulk, progress)
        if "rivals" in args.only:
            work_rivals = rivals.RivalWork(QUICK_FACTS, 2) if args.quick else rivals.RivalWork()
            found["rivals"] = rivals.measure(engines, served.base_dir, work_rivals, progress)
    return found


def variants(quick: bool) -> list[Variant]:
    """No edits; 1,000 and 10,000 of which every request asks for one; 100 to 10,000 of which it reads as many as it
    may; 10,000 of which it reads none."""
    if quick:
        return [Variant(0), Variant(max(QUICK_FACTS), "asked"), Variant(20, "most"), Variant(20)]
    one, most = (
        (Variant(edits, "asked") for edits in FACTS),
        (Variant(edits, "most") for edits in (100, 1000, 10_000)),
    )
    return [Variant(0), *one, *most, Variant(10_000)]


def server_work(quick: bool, served: Served) -> ServerWork:
    """Sizes for the HTTP section."""
    args = (str(served.base_dir), "--adapter", str(served.adapter_dir))
    return ServerWork(present=(5, 50), adds=3, warm_starts=1, args=args) if quick else ServerWork(args=args)


def write(result: dict[str, Any], folder: Path) -> None:
    """Both files; a run of some sections has a name of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    sections = [name for name in SECTIONS if name in result]
    name = "serving" if len(sections) == len(SECTIONS) else "-".join(["serving", *sections])
    (folder / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    (folder / f"{name}.md").write_text(markdown(result))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
