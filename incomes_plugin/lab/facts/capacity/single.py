"""N99 of Hebbian memories when only one memory of each size is looked at: how much the constant c depends on that
definition.

Here a size holds if the one memory drawn recalls 99 %; in `linear.py` if thousands of facts do on average. At width 16
99 % of 11 facts are all of them: two memories in three recall them all, and 96 % of the facts come back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import torch

from incomes_plugin.lab.facts.capacity.experiment import Claim, Curve, Experiment, Measurement, Plot, Table
from incomes_plugin.lab.facts.capacity.linear import LinearJob, recalled
from incomes_plugin.lab.facts.theory import LIKELY, PUBLISHED, Rule, facts_at_load, load

WIDTHS = (16, 32, 64, 128)
SEARCHES = 100
_MOST = 0.5
"""Load at which a search ends; it begins with two facts."""


@dataclass(frozen=True)
class SingleJob:
    """All searches at one width d = E = U."""

    width: int
    searches: int


@dataclass(frozen=True)
class SingleResult:
    """N99 of every search, in order."""

    facts: Sequence[int]


class Single(Experiment[SingleJob, SingleResult]):
    """Bisections with one memory a look."""

    name = "single"
    title = "Facts in a Hebbian memory, one memory a look"
    job_type = SingleJob
    result_type = SingleResult

    def jobs(self, *, quick: bool) -> list[SingleJob]:
        """All widths."""
        return [SingleJob(width, 3 if quick else SEARCHES) for width in (WIDTHS[:1] if quick else WIDTHS)]

    def measure(self, job: SingleJob) -> SingleResult:
        """Search again and again."""
        generator = torch.Generator().manual_seed(job.width)
        return SingleResult([_search(job.width, generator) for _ in range(job.searches)])

    def checks(self, cells: Sequence[Measurement[SingleJob, SingleResult]]) -> list[Claim]:
        """The constant within what is published."""
        low, high, _ = PUBLISHED[Rule.HEBBIAN]
        found = {cell.job.width: _constant(cell) for cell in cells}
        met = all(low <= c <= high for c in found.values())
        said = ", ".join(f"d={width}: {c:.3f}" for width, c in found.items())
        return [Claim("hebbian, one memory a look: N ln N / d²", f"{low:.2f} to {high:.2f}", said, met)]

    def table(self, cells: Sequence[Measurement[SingleJob, SingleResult]]) -> Table:
        """Mean, and what nine of ten searches find."""
        header = ("d", "searches", "N99 (nine of ten)", "N ln N / d²")
        return Table(header, [_row(cell) for cell in cells])

    def plot(self, cells: Sequence[Measurement[SingleJob, SingleResult]]) -> Plot:
        """N99 against the width."""
        points = [(float(cell.job.width), fmean(cell.result.facts)) for cell in cells]
        law = [(w, float(facts_at_load(PUBLISHED[Rule.HEBBIAN].low, w, w))) for w, _ in points]
        curves = [Curve("one memory a look", points), Curve("N ln N = 0.08 d²", law, law=True)]
        return Plot("width d", "facts recalled at 99 %", curves)


def _search(width: int, generator: torch.Generator) -> int:
    """Bisection between two facts and a load of `_MOST`."""
    low, high = 2, facts_at_load(_MOST, width, width)
    job = LinearJob(Rule.HEBBIAN, width, 0)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if recalled(job, middle, generator) >= LIKELY else (low, middle)
    return low


def _constant(cell: Measurement[SingleJob, SingleResult]) -> float:
    return load(round(fmean(cell.result.facts)), cell.job.width, cell.job.width)


def _row(cell: Measurement[SingleJob, SingleResult]) -> list[str]:
    ordered, tenth = sorted(cell.result.facts), len(cell.result.facts) // 20
    spread = f"{fmean(ordered):,.1f} ({ordered[tenth]:,} to {ordered[-1 - tenth]:,})"
    return [str(cell.job.width), str(len(ordered)), spread, f"{_constant(cell):.3f}"]
