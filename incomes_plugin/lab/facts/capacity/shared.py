"""N99 of an MLP memory with 32 answers for all facts, against its size; a trained linear memory gets the same facts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import torch

from incomes_plugin.lab.facts.capacity.experiment import Claim, Curve, Experiment, Measurement, Plot, Table
from incomes_plugin.lab.facts.capacity.linear import on_sphere
from incomes_plugin.lab.facts.capacity.search import largest
from incomes_plugin.lab.facts.memories import LinearMemory, MLPMemory, decide, rules
from incomes_plugin.lab.facts.theory import LIKELY, MLP_SHARED

ANSWERS = 32
SIZES = ((16, 32), (16, 64), (32, 64), (32, 128))
SEEDS = 3
STEPS = 3000
RATIO = 1.06
STRIDE = 1.15
TOLERANCE = 0.25
LINEAR_STEPS = 300


@dataclass(frozen=True)
class SharedJob:
    """One search: width d, hidden units m, a seed."""

    width: int
    hidden: int
    seed: int
    steps: int = STEPS


@dataclass(frozen=True)
class SharedResult:
    """What was found.

    Attributes:
        facts: N99 of the MLP.
        constant: m d / N99.
        linear_recall: what a trained linear memory recalls of as many facts.
    """

    facts: int
    constant: float
    linear_recall: float


SharedMeasurement = Measurement[SharedJob, SharedResult]
SharedFacts = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class Shared(Experiment[SharedJob, SharedResult]):
    """Searches of N99, and the linear memory beside."""

    name = "shared"
    title = "Facts that share 32 answers: MLP memory"
    job_type = SharedJob
    result_type = SharedResult

    def jobs(self, *, quick: bool) -> list[SharedJob]:
        """Sizes from 512 to 4,096 m d."""
        if quick:
            return [SharedJob(8, 16, 0, 300)]
        return [SharedJob(width, hidden, seed) for width, hidden in SIZES for seed in range(SEEDS)]

    def measure(self, job: SharedJob) -> SharedResult:
        """Search N99."""
        size = job.width * job.hidden
        found = largest(
            lambda facts: mlp_recall(job, facts), round(size / MLP_SHARED), goal=LIKELY, ratio=RATIO, stride=STRIDE
        )
        return SharedResult(found, size / max(1, found), linear_recall(job, found))

    def checks(self, cells: Sequence[SharedMeasurement]) -> list[Claim]:
        """Within a quarter of the published fit at every size; the linear memory fails."""
        sizes = _by_size(cells)
        ratios = {size: fmean(cell.result.facts for cell in own) * MLP_SHARED / size for size, own in sizes.items()}
        linear = {size: fmean(cell.result.linear_recall for cell in own) for size, own in sizes.items()}
        near = all(abs(ratio - 1) <= TOLERANCE for ratio in ratios.values())
        return [
            Claim("MLP: N99 / (m d / 1.2)", "0.75 to 1.25", _listed(ratios, "{:.2f}"), near),
            Claim("a trained linear memory recalls of as many", "fails: below 50 %", _listed(linear, "{:.0%}"),
                  max(linear.values(), default=1.0) < 0.5),
        ]  # fmt: skip

    def table(self, cells: Sequence[SharedMeasurement]) -> Table:
        """One line a search."""
        header = ("d", "m", "seed", "N99", "m d / N99", "published", "linear memory, trained")
        rows = [
            [str(c.job.width), str(c.job.hidden), str(c.job.seed), f"{c.result.facts:,}", f"{c.result.constant:.2f}",
             str(MLP_SHARED), f"{c.result.linear_recall:.1%}"]
            for c in cells
        ]  # fmt: skip
        return Table(header, rows)

    def plot(self, cells: Sequence[SharedMeasurement]) -> Plot:
        """N99 against m d."""
        sizes = _by_size(cells)
        found = [(float(size), fmean(cell.result.facts for cell in own)) for size, own in sizes.items()]
        law = [(float(size), size / MLP_SHARED) for size in sizes]
        curves = [Curve("MLP memory, 32 answers", found), Curve("N = m d / 1.2", law, law=True)]
        return Plot("m d", "facts recalled at 99 %", curves)


def mlp_recall(job: SharedJob, size: int) -> float:
    """Share of `size` facts that a trained MLP memory recalls."""
    keys, codes, answers = _facts(job, size)
    memory = MLPMemory.fit(keys, codes, answers, job.hidden, seed=job.seed, steps=job.steps, goal=LIKELY)
    return _right(memory(keys), codes, answers)


def linear_recall(job: SharedJob, size: int) -> float:
    """The same of a trained linear memory."""
    keys, codes, answers = _facts(job, size)
    memory = LinearMemory(rules.trained(keys, codes, answers, steps=LINEAR_STEPS, goal=LIKELY))
    return _right(memory(keys), codes, answers)


def _facts(job: SharedJob, size: int) -> SharedFacts:
    """Keys `[N, E]`, codes `[32, U]`, answers `[N]`; a larger N begins with the facts of a smaller one."""
    generator = torch.Generator().manual_seed(job.seed)
    codes = on_sphere(ANSWERS, job.width, generator)
    answers = torch.randint(ANSWERS, (1 << 16,), generator=generator)[:size]
    return on_sphere(size, job.width, generator), codes, answers


def _right(values: torch.Tensor, codes: torch.Tensor, answers: torch.Tensor) -> float:
    return float((decide(values, codes).best == answers).float().mean())


def _by_size(cells: Sequence[SharedMeasurement]) -> dict[int, list[SharedMeasurement]]:
    """Cells by m d."""
    sizes = sorted({cell.job.width * cell.job.hidden for cell in cells})
    return {size: [cell for cell in cells if cell.job.width * cell.job.hidden == size] for size in sizes}


def _listed(figures: dict[int, float], form: str) -> str:
    return ", ".join(f"m d = {size:,}: {form.format(figure)}" for size, figure in figures.items())
