"""`python -m benchmarks.transplant`: the default model with tokenizers of others, by method and k.

Two published tokenizers whose rows come from small donors trained here (`donors.py`), several seeds of each. Measures
bits per byte, edit success, what must be the same to the last bit, and whether the assessment was right. Every finished
cell is in the working folder, so a run that is stopped goes on. Writes transplant.json, transplant.md, transplant.png.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.donors import DonorRecipe, train_donor, unpack_tokenizers
from benchmarks.transplant_edits import domain_text, edit_success, written_model
from benchmarks.transplant_report import UNTRAINED, draw, markdown
from benchmarks.transplant_same import round_trip, shared_prompts
from incomes_plugin.evaluation.provenance import provenance
from incomes_plugin.model import DEFAULT_MODEL_DIR
from incomes_plugin.training.data.corpus import read_jsonl_xz
from incomes_plugin.transplant.assess import assess
from incomes_plugin.transplant.bits import bits_per_byte, passages
from incomes_plugin.transplant.cutting import Cut
from incomes_plugin.transplant.prepare import Prepared, prepare
from incomes_plugin.transplant.recipe import Recipe
from incomes_plugin.transplant.report import document
from incomes_plugin.transplant.trial import Trial

RESULTS = Path(__file__).parent / "results"
VALUES_OF_K = (2, 4, 8, 16, 32, 64)
CELLS = ("same", "assess", "bits", "edits")
OTHERS = ("ridge", "knn", "subword", "mean", "zero", "random")
Cell = dict[str, Any]
console = Console(stderr=True, highlight=False)


def main(argv: list[str]) -> int:
    """All cells that are not there yet, then the report."""
    args = _parse(argv)
    torch.set_num_threads(args.threads)
    bench = Bench(args)
    for tokenizer in args.tokenizers:
        for seed in args.seeds:
            bench.donor(tokenizer, seed)
    for cell in args.cells:
        for tokenizer in args.tokenizers:
            getattr(bench, cell)(tokenizer)
    head = provenance(f"python -m benchmarks.transplant {' '.join(argv)}".strip())
    whole = head | {
        "donor": asdict(DonorRecipe("", 0)),
        "text_bytes": args.text_bytes,
        "note": args.note,
        "cells": bench.cells,
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "transplant.json").write_text(json.dumps(whole, indent=1) + "\n")
    (args.out / "transplant.md").write_text(markdown(whole))
    draw(bench.cells, args.out / "transplant.png")
    return 0


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transplant", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the shared data folder")
    parser.add_argument("--work", type=Path, required=True, help="donors, checkpoints and finished cells; kept")
    parser.add_argument("--tokenizers", nargs="+", default=["gpt2", "llama2"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cells", nargs="+", default=list(CELLS), choices=CELLS)
    parser.add_argument("--cuts", nargs="+", type=Cut, default=[Cut.NUMBERS, Cut.WORDS], choices=list(Cut))
    parser.add_argument("--steps", type=int, default=DonorRecipe.steps)
    parser.add_argument("--text-bytes", type=int, default=4096)
    parser.add_argument("--edit-methods", nargs="+", default=["omp", "ridge", "knn", "subword", "mean"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 100, 1000])
    parser.add_argument("--ask", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--note", default="", help="what a reader must know about this run")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args(argv)


class Bench:
    """Cells by their names; each is measured once."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._folder = args.work / "cells"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._tokenizers = unpack_tokenizers(args.data / "tokenizers" / "tokenizers.tar.xz", args.work / "tokenizers")

    @property
    def cells(self) -> dict[str, Cell]:
        """All that are finished."""
        return {path.stem: json.loads(path.read_text()) for path in sorted(self._folder.glob("*.json"))}

    def donor(self, tokenizer: str, seed: int | str) -> Path:
        """Its folder; trained if it is not there."""
        trained = seed != UNTRAINED
        recipe = DonorRecipe(tokenizer, int(seed) if trained else 0, steps=self._args.steps if trained else 0)
        folder: Path = self._args.work / "donors" / f"{tokenizer}-{seed}"
        return train_donor(recipe, self._tokenizers[tokenizer], self._args.data, folder)

    def prepared(self, tokenizer: str, seed: int | str, cut: Cut) -> Prepared:
        """The default model and a donor."""
        return prepare(DEFAULT_MODEL_DIR, self.donor(tokenizer, seed), {}, cut)

    def same(self, tokenizer: str) -> None:
        """What must be the same to the last bit."""
        for cut in self._args.cuts:
            prepared, model = self.prepared(tokenizer, self._args.seeds[0], cut), self._args.work / "models"
            self._cell(f"same-{tokenizer}-{cut}", lambda p=prepared, m=model: shared_prompts(p, m))  # type: ignore[misc]
            self._cell(f"back-{tokenizer}-{cut}", lambda p=prepared, m=model: round_trip(p, m))  # type: ignore[misc]

    def bits(self, tokenizer: str) -> None:
        """Bits per byte of every method and k, for every donor."""
        for cut, seed in product(self._args.cuts, (*self._args.seeds, UNTRAINED)):
            self._cell(f"bits-{tokenizer}-{cut}-{seed}", lambda c=cut, s=seed: self._bits(tokenizer, c, s))  # type: ignore[misc]

    def _bits(self, tokenizer: str, cut: Cut, seed: int | str) -> Cell:
        prepared = self.prepared(tokenizer, seed, cut)
        text, web = (
            domain_text(self._args.data, self._args.text_bytes),
            unseen_text(self._args.data, self._args.text_bytes),
        )
        trial, others = Trial(prepared, text, max(VALUES_OF_K)), passages(web, len(web))
        before = {"edits": trial.before}
        if seed == self._args.seeds[0]:
            before["web"] = bits_per_byte(trial.model, prepared.base.tokenizer, others)
        after: dict[str, dict[str, float]] = {"edits": {}, "web": {}}
        for recipe in [*(Recipe("omp", k) for k in VALUES_OF_K), *(Recipe(name) for name in OTHERS)]:
            after["edits"][name_of(recipe)] = trial.score(recipe).bits_per_byte
            if "web" in before:
                after["web"][name_of(recipe)] = bits_per_byte(trial.model, prepared.fitted.tokenizer, others)
        named = {"tokenizer": tokenizer, "cut": cut, "seed": seed}
        return named | {"before": before, "after": after}

    def assess(self, tokenizer: str) -> None:
        """What the assessment says of the plans whose edits were asked."""
        for cut, seed in product(self._args.cuts, (self._args.seeds[0], UNTRAINED)):
            name = f"assess-{tokenizer}-{cut}-{seed}"
            self._cell(name, lambda c=cut, s=seed: self._assess(tokenizer, c, s))  # type: ignore[misc]

    def _assess(self, tokenizer: str, cut: Cut, seed: int | str) -> Cell:
        found = assess(self.prepared(tokenizer, seed, cut), domain_text(self._args.data, self._args.text_bytes))
        return {"tokenizer": tokenizer, "cut": cut, "seed": seed} | document(found)

    def edits(self, tokenizer: str) -> None:
        """Edit success of the default model itself, and of its transplants by method."""
        sizes, ask, seed = self._args.sizes, self._args.ask, self._args.seeds[0]
        self._cell("edits-default", lambda: edit_success(DEFAULT_MODEL_DIR, sizes, ask))
        wanted = [(cut, seed, method) for cut, method in product(self._args.cuts, self._args.edit_methods)]
        for cut, donor, method in [*wanted, *((cut, UNTRAINED, "omp") for cut in self._args.cuts)]:
            name = f"edits-{tokenizer}-{cut}-{donor}-{method}"
            self._cell(name, lambda c=cut, d=donor, m=method: self._edits(tokenizer, c, d, m))  # type: ignore[misc]

    def _edits(self, tokenizer: str, cut: Cut, seed: int | str, method: str) -> Cell:
        prepared = self.prepared(tokenizer, seed, cut)
        folder = written_model(prepared, Recipe(method), self._args.work / "models")
        found = edit_success(folder, self._args.sizes, self._args.ask, prepared)
        return {"tokenizer": tokenizer, "cut": cut, "seed": seed, "method": method} | found

    def _cell(self, name: str, measure: Callable[[], Cell]) -> None:
        path = self._folder / f"{name}.json"
        if not path.is_file():
            cell = measure()
            path.write_text(json.dumps(cell, indent=1) + "\n")
            console.print(name, cell, markup=False)


def name_of(recipe: Recipe) -> str:
    """`omp 8`, `ridge`."""
    return f"{recipe.method} {recipe.k or ''}".strip()


def unseen_text(data: Path, num_bytes: int) -> str:
    """Web sentences that neither the default model nor the donors were trained on."""
    lines = [record["text"] for record in read_jsonl_xz(data / "text" / "trex_bing.jsonl.xz")]
    random.Random(7).shuffle(lines)
    return _until(lines, num_bytes)


def _until(lines: Sequence[str], num_bytes: int) -> str:
    found: list[str] = []
    for line in lines:
        found.append(line)
        if sum(len(part.encode()) for part in found) >= num_bytes:
            break
    return "\n".join(found).encode()[:num_bytes].decode(errors="ignore")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
