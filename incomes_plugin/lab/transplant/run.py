"""A plan and a recipe in; the checkpoint and its report out. Called by the command."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from incomes_plugin.errors import InvalidValue
from incomes_plugin.lab.data.examples import Example
from incomes_plugin.lab.progress import StageProgress
from incomes_plugin.lab.transplant.assess import Assessment
from incomes_plugin.lab.transplant.checkpoint import ADAPTER, write_checkpoint
from incomes_plugin.lab.transplant.edits import EditsKept, answered
from incomes_plugin.lab.transplant.inspection import Inspection, Probes, inspect
from incomes_plugin.lab.transplant.matrices import TensorPlace
from incomes_plugin.lab.transplant.methods import Recipe
from incomes_plugin.lab.transplant.prepare import Prepared
from incomes_plugin.lab.transplant.report import TransplantResult, document, markdown
from incomes_plugin.lab.transplant.trial import Comparison, Trial, best, candidates
from incomes_plugin.model.adapter import EditAdapter

RECORD = "transplant"
"""Folder of the report inside the new checkpoint."""


@dataclass(frozen=True)
class TransplantOptions:
    """What to do beside writing.

    Attributes:
        text: a held-out text; None = bits per byte are not measured, and no row is asked what it says.
        every_k: choose k by bits per byte.
        every_method: measure all methods, to show them.
        edits: to ask about before and after; the base has an adapter then.
    """

    recipe: Recipe
    text: str | None = None
    every_k: bool = False
    every_method: bool = False
    edits: Sequence[Example] = ()

    def __post_init__(self) -> None:
        if self.text is None and (self.every_k or self.every_method):
            raise InvalidValue("bits per byte need a text: --text FILE, not part of what the models saw", param="text")
        if self.every_k and self.recipe.method != "omp":
            raise InvalidValue(f"k belongs to omp; {self.recipe.method} has none to choose", param="k")


def carry_out(
    prepared: Prepared, found: Assessment, options: TransplantOptions, out: Path, report: StageProgress
) -> TransplantResult:
    """Measure, write, inspect, and put the report beside the checkpoint.

    Raises:
        InvalidValue: see `write_checkpoint` and `Trial`.
    """
    bits, probes = _measure(prepared, options, report)
    own = [score for score in bits.scores if score.recipe.method == options.recipe.method] if bits else []
    recipe = best(own).recipe if own else options.recipe
    written = write_checkpoint(prepared, recipe, out, report)
    result = TransplantResult(
        prepared, recipe, written, bits, _inspect(prepared, recipe, out, probes),
        _edits(prepared, options.edits, out, report),
    )  # fmt: skip
    record = out / RECORD
    record.mkdir()
    (record / "report.json").write_text(json.dumps(document(found, result), indent=1) + "\n")
    (record / "report.md").write_text(markdown(found, result))
    return result


def _measure(
    prepared: Prepared, options: TransplantOptions, report: StageProgress
) -> tuple[Comparison | None, Probes | None]:
    if options.text is None:
        return None, None
    tried = candidates(prepared, options.recipe, every_method=options.every_method, every_k=options.every_k)
    trial = Trial(prepared, options.text, max(recipe.k or 1 for recipe in tried))
    scores = []
    for place, recipe in enumerate(tried):
        report("bits per byte", place, len(tried))
        scores.append(trial.score(recipe, report))
    report("bits per byte", len(tried), len(tried))
    return Comparison(trial.before, trial.num_bytes, tuple(scores)), trial.probes


def _inspect(prepared: Prepared, recipe: Recipe, out: Path, probes: Probes | None) -> dict[str, Inspection]:
    """Every new matrix of the written checkpoint; hidden states ask the one that says tokens."""
    last = prepared.pairs[-1].part
    found = {}
    for pair in prepared.pairs:
        weight = TensorPlace(pair.base.name, out / pair.base.file.name).read()
        seen = inspect(prepared, pair, recipe, weight, probes if pair.part == last else None)
        if seen:
            found[pair.part] = seen
    return found


def _edits(prepared: Prepared, examples: Sequence[Example], out: Path, report: StageProgress) -> EditsKept | None:
    if not examples or prepared.adapter is None:
        return None
    before = answered(prepared.base.folder, prepared.adapter, examples, partial(report, "edits before"))
    after = answered(out, EditAdapter.load(out / ADAPTER), examples, partial(report, "edits after"))
    return EditsKept(before, after)
