"""N99 of linear memories with one random value for each fact, against their width: N ln N / d^2 is nearly constant."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
import torch.nn.functional as F

from incomes_plugin.lab.facts.capacity.experiment import Claim, Curve, Experiment, Measurement, Plot, Table
from incomes_plugin.lab.facts.capacity.search import largest
from incomes_plugin.lab.facts.memories import LinearMemory, decide, rules
from incomes_plugin.lab.facts.theory import LIKELY, PUBLISHED, SAFE_TRAINED, Rule, facts_at_load, facts_recalled, load

FACTS_A_LOOK = {Rule.HEBBIAN: 4000, Rule.RIDGE: 4000, Rule.TRAINED: 400}
"""Number of facts over which recall is measured: so many memories of N facts are drawn that they hold this many
together."""

WIDTHS, MORE_WIDTHS = (16, 32, 64, 128), (256, 512)
SEEDS = 5
STEPS = 150
RATIO = 1.03
START = {Rule.HEBBIAN: 0.12, Rule.RIDGE: 0.21, Rule.TRAINED: 0.85}
"""Loads at which searches begin."""


@dataclass(frozen=True)
class LinearJob:
    """One search: a rule, a width d = E = U, a seed."""

    rule: Rule
    width: int
    seed: int


@dataclass(frozen=True)
class LinearResult:
    """N99, and N99 ln N99 / d^2."""

    facts: int
    constant: float


LinearCell = Measurement[LinearJob, LinearResult]


class Linear(Experiment[LinearJob, LinearResult]):
    """Searches of N99."""

    name = "linear"
    title = "Facts in a linear memory"
    job_type = LinearJob
    result_type = LinearResult

    def jobs(self, *, quick: bool) -> list[LinearJob]:
        """All rules at small widths; rules with a closed form also at larger ones."""
        widths, seeds = ((32,), 1) if quick else (WIDTHS, SEEDS)
        sizes = [(rule, width) for width in widths for rule in Rule]
        sizes += [(rule, width) for width in (() if quick else MORE_WIDTHS) for rule in (Rule.HEBBIAN, Rule.RIDGE)]
        return [LinearJob(rule, width, seed) for rule, width in sizes for seed in range(seeds)]

    def measure(self, job: LinearJob) -> LinearResult:
        """Search N99."""
        guess, stride = facts_at_load(START[job.rule], job.width, job.width), 1.25
        if job.rule is Rule.TRAINED:
            stride = 1.1  # memories that fail cost most
        found = largest(lambda size: recall(job, size), guess, goal=LIKELY, ratio=RATIO, stride=stride)
        return LinearResult(found, load(found, job.width, job.width))

    def checks(self, cells: Sequence[LinearCell]) -> list[Claim]:
        """Constants within what is published, and the slope of the law."""
        return [check for rule in Rule if (own := _means(cells, rule)) for check in _checks(rule, own)]

    def table(self, cells: Sequence[LinearCell]) -> Table:
        """Mean over seeds, smallest and largest, beside what noise theory expects."""
        header = ("rule", "d", "seeds", "N99 (smallest to largest)", "N ln N / d²", "published c", "expected N99")
        return Table(header, [row for rule in Rule for row in _rows(rule, cells)])

    def plot(self, cells: Sequence[LinearCell]) -> Plot:
        """N99 against the width."""
        curves = [Curve(rule, [(w, f) for w, (f, _) in own.items()]) for rule in Rule if (own := _means(cells, rule))]
        widths = sorted({cell.job.width for cell in cells})
        laws = [(f"N ln N = {c:.2f} d²", c) for c in (PUBLISHED[Rule.TRAINED].high, PUBLISHED[Rule.HEBBIAN].low)]
        curves += [Curve(label, [(w, facts_at_load(c, w, w)) for w in widths], law=True) for label, c in laws]
        return Plot("width d", "facts recalled at 99 %", curves)


def _means(cells: Sequence[LinearCell], rule: Rule) -> dict[int, tuple[float, float]]:
    """Mean N99 and constant over seeds, by width."""
    widths = sorted({cell.job.width for cell in cells if cell.job.rule == rule})
    own = {w: [c.result for c in cells if (c.job.rule, c.job.width) == (rule, w)] for w in widths}
    return {w: (fmean(r.facts for r in found), fmean(r.constant for r in found)) for w, found in own.items()}


def _checks(rule: Rule, means: dict[int, tuple[float, float]]) -> list[Claim]:
    low, high, _ = PUBLISHED[rule]
    asked = {width: constant for width, (_, constant) in means.items() if width in WIDTHS}
    bound = f"at least {low:.2f}" if rule is Rule.TRAINED else f"{low:.2f} to {high:.2f}"
    met = all(low <= c <= (math.inf if rule is Rule.TRAINED else high) for c in asked.values())
    found = [Claim(f"{rule}: N ln N / d²", bound, ", ".join(f"d={w}: {c:.3f}" for w, c in asked.items()), met)]
    if len(asked) > 2:
        slope = _slope({width: means[width][0] for width in asked})
        found.append(Claim(f"{rule}: log N99 against log d²", "0.8 to 1.1", f"{slope:.3f}", 0.8 <= slope <= 1.1))
    return found


def _slope(facts: dict[int, float]) -> float:
    """Least squares of log N99 against log d^2."""
    x = torch.tensor([2 * math.log(width) for width in facts])
    y = torch.tensor([math.log(count) for count in facts.values()])
    x = x - x.mean()
    return float((x * y).sum() / (x * x).sum())


def _rows(rule: Rule, cells: Sequence[LinearCell]) -> list[list[str]]:
    rows = []
    for width, (facts, constant) in _means(cells, rule).items():
        own = [cell.result.facts for cell in cells if (cell.job.rule, cell.job.width) == (rule, width)]
        low, high, _ = PUBLISHED[rule]
        expected = (
            facts_at_load(SAFE_TRAINED, width, width) if rule is Rule.TRAINED else facts_recalled(rule, width, width)
        )
        rows.append(
            [rule, str(width), str(len(own)), f"{facts:,.0f} ({min(own):,} to {max(own):,})", f"{constant:.3f}",
             f"{low:.2f} to {high:.2f}", f"{expected:,}"]
        )  # fmt: skip
    return rows


def recall(job: LinearJob, size: int) -> float:
    """Share of facts that come back, over several memories of `size` facts."""
    draws = math.ceil(FACTS_A_LOOK[job.rule] / size)
    generator = torch.Generator().manual_seed(job.seed * 1_000_003 + size)
    return sum(recalled(job, size, generator) for _ in range(draws)) / draws


def recalled(job: LinearJob, size: int, generator: torch.Generator) -> float:
    """Share of facts that come back from one memory."""
    keys, codes = (on_sphere(size, job.width, generator) for _ in range(2))
    answers = torch.arange(size)
    memory = LinearMemory(_written(job.rule, keys, codes, answers))
    return float((decide(memory(keys), codes).best == answers).float().mean())


def _written(rule: Rule, keys: torch.Tensor, codes: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
    if rule is Rule.HEBBIAN:
        return rules.hebbian(keys, codes)
    if rule is Rule.RIDGE:
        return rules.ridge(keys, codes)
    return rules.trained(keys, codes, answers, steps=STEPS, goal=LIKELY)


def on_sphere(count: int, width: int, generator: torch.Generator) -> torch.Tensor:
    """Vectors `[count, width]` of length 1, no direction preferred."""
    return F.normalize(torch.randn(count, width, generator=generator), dim=-1)
