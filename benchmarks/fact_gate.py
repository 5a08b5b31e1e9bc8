"""`python -m benchmarks.fact_gate`: the fact gate against a search of all entries, on the default model's own edits.

    found     reference path: recall of the right edit, unrelated prompts that read     fact_gate_found.py
    served    two engines, one with the gate: success, unrelated answers that change    fact_gate_served.py
    time      the same engines in turns: time per token                                 fact_gate_served.py

Every finished part of every size is in fact-gate.json, so a run that is stopped loses one part; `--resume` goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.fact_gate_found import Found
from benchmarks.fact_gate_report import markdown
from benchmarks.fact_gate_served import Served
from incomes_plugin.errors import InvalidValue
from incomes_plugin.evaluation.provenance import commit, provenance
from incomes_plugin.evaluation.run import RunOptions, Workload
from incomes_plugin.facts.gate.file import FactGate
from incomes_plugin.facts.gate.load import next_size
from incomes_plugin.gist.fingerprint import model_fingerprint
from incomes_plugin.model import DEFAULT_MODEL_DIR

RESULTS = Path(__file__).parent / "results"
NAME = "fact-gate"
SEED = 2027
PARTS = ("found", "served", "time")
ENTRIES_PER_EDIT = 6.5
"""Room in the memory for each edit of the largest set; the default model stores 6.1 entries."""

console = Console(stderr=True, highlight=False)


def main(argv: Sequence[str]) -> int:
    """Run the parts that are not there yet, and write them one by one."""
    args = _parse(argv)
    torch.set_num_threads(1)
    result = _begun(args, provenance(f"python -m benchmarks.fact_gate {' '.join(argv)}".strip()))
    room = result["setting"]["fact_gate_entries"]
    missing = [
        (n, part) for part in args.parts for n in sorted(args.edits) if part not in result["sizes"].get(str(n), {})
    ]
    works = {n: Workload.draw(RunOptions("invented", edits=n, limit=args.ask, seed=SEED)) for n in args.edits}
    if any(part == "found" for _, part in missing):
        found = Found(args.model, works[max(works)], room, args.data)
        _measure(result, args.out, [m for m in missing if m[1] == "found"], lambda n, _: found.figures(works[n]))
    if any(part != "found" for _, part in missing):
        with Served(args.model, works[max(works)].selection.edits, room) as served:
            measures = {"served": served.quality, "time": lambda work: served.times(work, args.rounds)}
            rest = [m for m in missing if m[1] != "found"]
            _measure(result, args.out, rest, lambda n, part: measures[part](works[n]))
    _write(result, args.out)
    sys.stdout.write(markdown(result))
    return 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fact_gate", description=__doc__)
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL_DIR)
    parser.add_argument("--edits", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--ask", type=int, default=300, help="edits that are asked about, three questions each")
    parser.add_argument("--rounds", type=int, default=9, help="of the timing")
    parser.add_argument("--data", type=Path, help="data folder, for questions that people asked about other things")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--resume", action="store_true", help="keep the parts of the results file")
    return parser.parse_args(argv)


def _begun(args: argparse.Namespace, where: dict[str, Any]) -> dict[str, Any]:
    """The document, with what is measured already.

    Raises:
        InvalidValue: `--resume` with figures of another model, gate or sample.
    """
    gate = FactGate.load(args.model)
    setting = {
        "fingerprint": model_fingerprint(args.model, torch.float32),
        "fact_gate_entries": next_size(round(ENTRIES_PER_EDIT * max(args.edits))),
        "units": gate.hidden.num_units,
        "winners": gate.hidden.winners,
        "reach": gate.reach,
        "threshold": gate.threshold,
        "asked_edits": args.ask,
        "seed": SEED,
    }
    path = args.out / f"{NAME}.json"
    sizes: dict[str, Any] = {}
    if args.resume and path.is_file():
        before = json.loads(path.read_text())
        if before["setting"] != setting:
            raise InvalidValue(f"{path} was measured with {before['setting']}, this is {setting}", param="resume")
        sizes = before["sizes"]
    return {**where, "setting": setting, "sizes": sizes}


def _measure(
    result: dict[str, Any], out: Path, parts: Sequence[tuple[int, str]], measure: Callable[[int, str], Any]
) -> None:
    for n, part in parts:
        start_s = time.perf_counter()
        figures = measure(n, part)
        seconds = round(time.perf_counter() - start_s)
        result["sizes"].setdefault(str(n), {})[part] = {"commit": commit(), "seconds": seconds, **figures}
        console.print(f"{n:,} edits: {part} done ({seconds} s)")
        _write(result, out)


def _write(result: dict[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    result["sizes"] = dict(sorted(result["sizes"].items(), key=lambda item: int(item[0])))
    (folder / f"{NAME}.json").write_text(json.dumps(result, indent=1) + "\n")
    (folder / f"{NAME}.md").write_text(markdown(result))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
