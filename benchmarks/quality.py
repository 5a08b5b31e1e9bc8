"""`python -m benchmarks.quality`: how well edits hold, for every data set, method and number of edits.

One engine per data set, made for the largest number of edits. Every finished cell is in the results file, so a run that
is stopped loses one cell; `--resume` goes on. Writes quality.json, quality.md and quality-<data>.png.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.report import table
from incomes_plugin.errors import IncomesError
from incomes_plugin.evaluation.backends.start import Backend, start_generator
from incomes_plugin.evaluation.interface import Generator
from incomes_plugin.evaluation.methods import METHODS
from incomes_plugin.evaluation.metrics import Metrics, Share
from incomes_plugin.evaluation.plot import curves, draw
from incomes_plugin.evaluation.provenance import commit, provenance
from incomes_plugin.evaluation.run import RunOptions, Workload, run
from incomes_plugin.model import DEFAULT_MODEL_DIR

RESULTS = Path(__file__).parent / "results"
SEED = 2027
"""Not a seed that any checkpoint was chosen by."""
SERVED = ("ours", "none", "oracle", "icl", "rag-bm25-1", "rag-bm25-5", "rag-dense-1", "rag-dense-5")
"""Methods that run on the engine; `lora` and `paper` need `--backend hf`."""
SHOWN = (
    "reliability", "generalization", "portability", "multihop", "locality_unchanged", "unrelated_unchanged",
    "unanswerable_refused", "attribution", "multi_turn", "long_prompt", "conflict_later_wins", "prompt_tokens_mean",
)  # fmt: skip
Cell = dict[str, Any]
console = Console(stderr=True, highlight=False)


def main(argv: list[str]) -> int:
    """Run all cells that are not there yet, and write the report."""
    args = _parse(argv)
    path = args.out / "quality.json"
    cells: list[Cell] = json.loads(path.read_text())["cells"] if args.resume and path.is_file() else []
    head = provenance(f"python -m benchmarks.quality {' '.join(argv)}".strip())
    args.out.mkdir(parents=True, exist_ok=True)
    for data in args.data:
        for cell in _measure(data, args, {_key(cell) for cell in cells}):
            cells.append(cell)
            path.write_text(json.dumps(head | {"cells": cells}, indent=1, ensure_ascii=False) + "\n")
    (args.out / "quality.md").write_text(markdown(head, cells))
    for data in args.data:
        if points := [(metrics_of(c), c["_run"]) for c in cells if c["_run"]["data"] == data and "reliability" in c]:
            draw(curves(points, "reliability"), "reliability", args.out / f"quality-{data}.png")
    return 0


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL_DIR)
    parser.add_argument("--data", nargs="+", default=["invented", "counterfact", "zsre"])
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--edits", type=int, nargs="+", default=[1, 10, 100, 1000, 10_000])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=SERVED)
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--backend", type=Backend, choices=list(Backend), default=Backend.VLLM)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--resume", action="store_true", help="keep the cells of the results file")
    return parser.parse_args(argv)


def _measure(data: str, args: argparse.Namespace, done: set[tuple[str, str, int]]) -> Iterator[Cell]:
    """The missing cells of one data set."""
    options = RunOptions(
        data, args.model, data_dir=args.data_dir, limit=args.limit, seed=args.seed, backend=args.backend
    )
    missing = [(edits, m) for edits in sorted(args.edits) for m in args.methods if (data, m, edits) not in done]
    if not missing:
        return
    work = {edits: Workload.draw(replace(options, edits=edits)) for edits in {edits for edits, _ in missing}}
    largest = work[max(work)].selection.edits
    with start_generator(
        args.backend, args.model, largest=largest, max_context_tokens=2048, dtype=args.dtype
    ) as generator:
        for edits, method in missing:
            yield _cell(replace(options, edits=edits, method=method), work[edits], generator)


def _cell(options: RunOptions, work: Workload, generator: Generator) -> Cell:
    """Metrics and facts; a method that cannot run says why in place of metrics."""
    name = f"{options.data}, {options.edits:,} edits, {options.method}"
    try:
        result = run(options, work, generator, lambda *_: None)
    except IncomesError as error:
        console.print(f"{name}: {error.message}", markup=False)
        return {"_run": {"data": options.data, "method": options.method, "edits": options.edits}, "_failed": str(error)}
    shown = ", ".join(f"{k} {v.value}" for k, v in result.metrics.items() if k in SHOWN)
    console.print(f"{name}: {shown} ({result.facts.prepare_s + result.facts.ask_s:.0f} s)", markup=False)
    return {k: asdict(v) for k, v in result.metrics.items()} | {"_run": asdict(result.facts) | {"commit": commit()}}


def _key(cell: Cell) -> tuple[str, str, int]:
    facts = cell["_run"]
    return facts["data"], facts["method"], facts["edits"]


def metrics_of(cell: Cell) -> Metrics:
    """Its shares."""
    return {name: Share(**value) for name, value in cell.items() if not name.startswith("_")}


def markdown(head: dict[str, Any], cells: list[Cell]) -> str:
    """One table for each data set and metric: methods down, edits across; in brackets the 95 % interval."""
    parts = [f"# How well edits hold\n\n`{head['command']}` on {head['date']}, commit {head['commit']}."]
    for data in dict.fromkeys(cell["_run"]["data"] for cell in cells):
        own = [cell for cell in cells if cell["_run"]["data"] == data]
        for metric in SHOWN:
            if any(metric in cell for cell in own):
                parts.append(f"## {data}: {metric}\n\n{_table(own, metric)}")
    return "\n\n".join(parts) + "\n"


def _table(cells: list[Cell], metric: str) -> str:
    sizes = sorted({cell["_run"]["edits"] for cell in cells})
    methods = list(dict.fromkeys(cell["_run"]["method"] for cell in cells))
    found = {(c["_run"]["method"], c["_run"]["edits"]): c for c in cells}
    rows = [[method, *(_figure(found.get((method, size), {}), metric) for size in sizes)] for method in methods]
    return table(["", *(f"{size:,}" for size in sizes)], rows)


def _figure(cell: Cell, metric: str) -> str:
    if metric not in cell:
        return "–"
    share, active = cell[metric], cell["_run"]["edits_active"]
    scale, form = (1, "{:.0f}") if metric == "prompt_tokens_mean" else (100, "{:.1f}")
    low, high = (form.format(scale * share[name]) for name in ("ci_low", "ci_high"))
    fewer = "" if active == cell["_run"]["edits"] else f" (N = {active:,})"
    return f"{form.format(scale * share['value'])} [{low}–{high}]{fewer}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
