"""`python -m benchmarks.transplant`: the default base with a tokenizer of others, by cut and method.

The rows of the donor come from a small model trained here (`donors.py`). Measures bits per byte of published edits and
questions (dev splits), and how many of them are answered, before and after. A finished cell is in the working folder,
so a run that is stopped goes on. Writes transplant.json and transplant.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.donors import DonorRecipe, train_donor, unpack_tokenizers
from benchmarks.report import table
from incomes_plugin.errors import AdapterMissing
from incomes_plugin.lab.data.examples import Example, published
from incomes_plugin.lab.provenance import provenance
from incomes_plugin.lab.transplant.assess import assess
from incomes_plugin.lab.transplant.checkpoint import ADAPTER, write_checkpoint
from incomes_plugin.lab.transplant.cutting import Cut
from incomes_plugin.lab.transplant.edits import answered
from incomes_plugin.lab.transplant.methods import METHODS, Recipe
from incomes_plugin.lab.transplant.prepare import Prepared, prepare
from incomes_plugin.lab.transplant.report import document
from incomes_plugin.lab.transplant.trial import Trial
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.model.base import ensure_base
from incomes_plugin.model.resolve import resolve

RESULTS = Path(__file__).parent / "results"
VALUES_OF_K = (4, 16, 64)
SETS = ("counterfact", "zsre")
Cell = dict[str, Any]
console = Console(stderr=True, highlight=False)


def main(argv: list[str]) -> int:
    """All cells that are not there yet, then the page."""
    args = _parse(argv)
    torch.set_num_threads(args.threads)
    where = provenance(f"python -m benchmarks.transplant {' '.join(argv)}".strip())
    cells = measure(args)
    args.out.mkdir(parents=True, exist_ok=True)
    whole = where | {"donor": asdict(DonorRecipe(args.tokenizer, 0, steps=args.steps)), "cells": cells}
    (args.out / "transplant.json").write_text(json.dumps(whole, indent=1) + "\n")
    (args.out / "transplant.md").write_text(markdown(whole))
    return 0


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transplant", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the shared data folder")
    parser.add_argument("--work", type=Path, required=True, help="donor, checkpoints and finished cells; kept")
    parser.add_argument("--tokenizer", default="gpt2", choices=("gpt2", "llama2"))
    parser.add_argument("--steps", type=int, default=DonorRecipe.steps, help="of the donor's training")
    parser.add_argument("--cuts", nargs="+", type=Cut, default=[Cut.NUMBERS, Cut.WORDS], choices=list(Cut))
    parser.add_argument("--edits", type=int, default=40, help="that are asked; 0 = none")
    parser.add_argument("--text-bytes", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args(argv)


def measure(args: argparse.Namespace) -> dict[str, Cell]:
    """Cells by name: `<cut> assessment`, `<cut> bits`, `<cut> edits <method>`, and `edits before`."""
    folder = args.work / "cells"
    folder.mkdir(parents=True, exist_ok=True)
    base, adapter = _base(needed=args.edits > 0)
    tokenizers = unpack_tokenizers(args.data / "tokenizers" / "tokenizers.tar.xz", args.work / "tokenizers")
    recipe = DonorRecipe(args.tokenizer, 0, steps=args.steps)
    donor = train_donor(recipe, tokenizers[args.tokenizer], args.data, args.work / f"{args.tokenizer}-{args.steps}")
    examples = [example for name in SETS for example in published(args.data, name, "dev", max(20, args.edits))]
    text = _text(examples, args.text_bytes)
    chosen = examples[:: max(1, len(examples) // max(1, args.edits))][: args.edits]
    if chosen and adapter:
        cell(folder, "edits before", lambda: asdict(answered(base, adapter, chosen)))
    for cut in args.cuts:
        prepared = prepare(base, donor, {}, cut, adapter)
        cell(folder, f"{cut} assessment", partial(_assessment, prepared, text))
        cell(folder, f"{cut} bits", partial(_bits, prepared, text))
        for method in METHODS if chosen and adapter else ():
            cell(folder, f"{cut} edits {method}", partial(_edits, prepared, method, args.work / "model", chosen))
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def cell(folder: Path, name: str, found: Callable[[], Cell]) -> None:
    """Measure what is not there yet."""
    path = folder / f"{name}.json"
    if not path.is_file():
        path.write_text(json.dumps(found(), indent=1) + "\n")
        console.print(name, path.read_text(), markup=False)


def _base(*, needed: bool) -> tuple[Path, EditAdapter | None]:
    try:
        served = resolve(None, None)
    except AdapterMissing:
        if needed:
            raise
        return ensure_base(), None
    return served.base_dir, EditAdapter.load(served.adapter_dir)


def _text(examples: Sequence[Example], num_bytes: int) -> str:
    lines = [line for example in examples for line in (example.statement, example.questions[0].prompt)]
    return "\n".join(lines).encode()[:num_bytes].decode(errors="ignore")


def _assessment(prepared: Prepared, text: str) -> Cell:
    found: Cell = document(assess(prepared, text))["assessment"]
    return found


def _bits(prepared: Prepared, text: str) -> Cell:
    """Bits per byte before, and after by method and k."""
    trial = Trial(prepared, text, max(VALUES_OF_K))
    recipes = [*(Recipe("omp", k) for k in VALUES_OF_K), *(Recipe(name) for name in METHODS if name != "omp")]
    after = {f"{r.method} {r.k or ''}".strip(): trial.score(r).bits_per_byte for r in recipes}
    return {"bytes": trial.num_bytes, "before": trial.before, "after": after}


def _edits(prepared: Prepared, method: str, out: Path, examples: Sequence[Example]) -> Cell:
    shutil.rmtree(out, ignore_errors=True)
    write_checkpoint(prepared, Recipe(method), out)
    return asdict(answered(out, EditAdapter.load(out / ADAPTER), examples))


def markdown(whole: dict[str, Any]) -> str:
    """Two tables and the verdicts."""
    cells, donor = whole["cells"], whole["donor"]
    cuts = [name.removesuffix(" bits") for name in cells if name.endswith(" bits")]
    parts = [
        f"# The default base with the tokenizer of {donor['tokenizer']}",
        f"`{whole['command']}` on {whole['date']}, commit {whole['commit']}.",
        f"Donor: a Llama of {donor['layers']} layer and width {donor['width']}, {donor['steps']} steps of 2,048 tokens "
        "from scratch; rows of tokens that it never saw are zero, and are spelled.",
        "## Bits per byte of published edits and questions",
        table(["rows by", *cuts], _bits_rows(cells, cuts)),
    ]
    if "edits before" in cells:
        parts += ["## Edits answered", table(["rows by", *cuts], _edit_rows(cells, cuts))]
    parts += ["## What `--assess` foretold"]
    parts += [f"* {cut}: {_verdict(cells[f'{cut} assessment'])}" for cut in cuts]
    return "\n\n".join(parts) + "\n"


def _bits_rows(cells: dict[str, Cell], cuts: Sequence[str]) -> list[list[str]]:
    found = [cells[f"{cut} bits"] for cut in cuts]
    names = found[0]["after"] if found else ()
    before = ["the base, its own tokenizer", *(f"{cell['before']:.3f}" for cell in found)]
    return [before, *([name, *(f"{cell['after'][name]:.3f}" for cell in found)] for name in names)]


def _edit_rows(cells: dict[str, Cell], cuts: Sequence[str]) -> list[list[str]]:
    rows = [["the base, its own tokenizer", *[_answered(cells["edits before"])] * len(cuts)]]
    return rows + [[name, *(_answered(cells[f"{cut} edits {name}"]) for cut in cuts)] for name in METHODS]


def _answered(cell: Cell) -> str:
    return f"{cell['right']} of {cell['asked']}, picked {cell['chosen']}"


def _verdict(cell: Cell) -> str:
    reasons = "; ".join(reason["reason"] for reason in cell["reasons"])
    return f"{cell['verdict']}, {cell['copied']:,} of {cell['tokens']:,} rows copied. {reasons}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
