"""A plan and a recipe in; the checkpoint, its record and its report out. Called by the command."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from incomes_plugin.errors import InvalidValue
from incomes_plugin.transplant.assess import Assessment
from incomes_plugin.transplant.checkpoint import Report, write_checkpoint
from incomes_plugin.transplant.inspection import Inspection, Probes, inspect
from incomes_plugin.transplant.lineage import FOLDER
from incomes_plugin.transplant.matrices import TensorPlace
from incomes_plugin.transplant.picture import draw
from incomes_plugin.transplant.prepare import Prepared
from incomes_plugin.transplant.recipe import Recipe
from incomes_plugin.transplant.report import Result, document, markdown
from incomes_plugin.transplant.trial import Comparison, Trial, best, candidates


@dataclass(frozen=True)
class Wishes:
    """What to do beside writing.

    Attributes:
        text: a held-out text; None = bits per byte are not measured, and no row is asked what it says.
        every_k: choose k by bits per byte.
        every_method: measure all methods, to show them.
    """

    recipe: Recipe
    text: str | None = None
    every_k: bool = False
    every_method: bool = False

    def __post_init__(self) -> None:
        if self.text is None and (self.every_k or self.every_method):
            raise InvalidValue("bits per byte need a text: --text FILE, not part of what the models saw", param="text")
        if self.every_k and self.recipe.method != "omp":
            raise InvalidValue(f"k belongs to omp; {self.recipe.method} has none to choose", param="k")


def carry_out(prepared: Prepared, found: Assessment, wishes: Wishes, out: Path, report: Report) -> Result:
    """Measure, write, inspect, and put the report beside the checkpoint.

    Raises:
        InvalidValue: see `write_checkpoint` and `Trial`.
    """
    bits, probes = _measure(prepared, wishes, report)
    own = [score for score in bits.scores if score.recipe.method == wishes.recipe.method] if bits else []
    recipe = best(own).recipe if own else wishes.recipe
    written = write_checkpoint(prepared, recipe, out, report)
    result = Result(prepared, recipe, written, bits, _inspect(prepared, recipe, out, probes))
    record = out / FOLDER
    (record / "report.json").write_text(json.dumps(document(found, result), indent=1) + "\n")
    (record / "report.md").write_text(markdown(found, result))
    draw(written, bits, record / "report.png")
    return result


def _measure(prepared: Prepared, wishes: Wishes, report: Report) -> tuple[Comparison | None, Probes | None]:
    if wishes.text is None:
        return None, None
    tried = candidates(prepared, wishes.recipe, every_method=wishes.every_method, every_k=wishes.every_k)
    trial = Trial(prepared, wishes.text, max(recipe.k or 1 for recipe in tried))
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
