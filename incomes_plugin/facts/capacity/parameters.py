"""Facts against parameters: the smallest one-layer transformer that learns S R facts, with an MLP and without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from incomes_plugin.facts.capacity.experiment import Cell, Check, Curve, Experiment, Plot, Table
from incomes_plugin.facts.capacity.task import Task
from incomes_plugin.facts.capacity.transformer import Size, trained
from incomes_plugin.facts.theory import FACTS_PER_PARAMETER, LIKELY

CHOICES = 8
HEADS = 4
STEPS = 2500
BATCH = 512
LEARNING_RATE = 3e-2
STEP = 4
SUBJECTS = {"attention": (8, 12, 16, 24), "attention + MLP": (8, 12, 16, 24)}
LEAST_FACTS_PER_PARAMETER = 0.1


@dataclass(frozen=True)
class ParametersJob:
    """One search: S = R, a shape of the model, a seed."""

    subjects: int
    shape: str
    seed: int
    steps: int = STEPS


@dataclass(frozen=True)
class ParametersResult:
    """The smallest model that recalled 99 %, of widths in steps of four.

    Attributes:
        facts: S R.
        width, parameters: of the model; attention, MLP and biases.
        recall: its share of facts.
        next_recall: that of the next smaller one.
    """

    facts: int
    width: int
    parameters: int
    recall: float
    next_recall: float

    @property
    def facts_per_parameter(self) -> float:
        """S R over parameters."""
        return self.facts / self.parameters


ParametersCell = Cell[ParametersJob, ParametersResult]


class Parameters(Experiment[ParametersJob, ParametersResult]):
    """Searches for the smallest model."""

    name = "parameters"
    title = "Facts of one-layer transformers against their parameters"
    job_type = ParametersJob
    result_type = ParametersResult

    def jobs(self, *, quick: bool) -> list[ParametersJob]:
        """S = R from 8 to 24."""
        if quick:
            return [ParametersJob(4, "attention + MLP", 0, 200)]
        jobs = [ParametersJob(n, shape, 0) for shape, counts in SUBJECTS.items() for n in counts]
        return sorted(jobs, key=lambda job: job.subjects)

    def measure(self, job: ParametersJob) -> ParametersResult:
        """From a width that should do, down until one fails (or up until one does)."""
        task = Task(job.subjects, job.subjects, CHOICES, job.seed)
        width = STEP * round((1.5 if job.shape == "attention" else 1.7) * job.subjects / STEP)
        found: dict[int, float] = {width: self._recall(task, job, width)}
        step = -STEP if found[width] >= LIKELY else STEP
        while STEP < width + step <= 4 * job.subjects + 2 * STEP:
            width += step
            found[width] = self._recall(task, job, width)
            if (found[width] >= LIKELY) == (step > 0):
                break
        best = min((w for w, share in found.items() if share >= LIKELY), default=max(found))
        return ParametersResult(
            task.facts, best, parameters(size_of(job.shape, best)), found[best], found.get(best - STEP, 0.0)
        )

    def checks(self, cells: Sequence[ParametersCell]) -> list[Check]:
        """Recall and facts per parameter, of the best model and of all that are large enough to say it."""
        if not cells:
            return []
        recall = min(cell.result.recall for cell in cells)
        best = max(
            (c.result for c in cells if c.result.recall >= LIKELY), key=lambda r: r.facts_per_parameter, default=None
        )
        density = best.facts_per_parameter if best else 0.0
        what = f"{best.facts} facts, {best.parameters:,} parameters" if best else "none"
        return [
            Check("one-layer transformers recall", "at least 99 %", f"{recall:.2%} (the worst)", recall >= LIKELY),
            Check("facts per parameter at 99 %", f"at least {LEAST_FACTS_PER_PARAMETER}", f"{density:.3f} ({what})",
                  density >= LEAST_FACTS_PER_PARAMETER),
        ]  # fmt: skip

    def table(self, cells: Sequence[ParametersCell]) -> Table:
        """One line a search."""
        header = (
            "S = R",
            "facts",
            "shape",
            "d",
            "parameters",
            "recall",
            "four narrower",
            "facts per parameter",
            "published",
        )
        rows = [
            [str(c.job.subjects), str(c.result.facts), c.job.shape, str(c.result.width), f"{c.result.parameters:,}",
             f"{c.result.recall:.2%}", f"{c.result.next_recall:.1%}" if c.result.next_recall else "not tried",
             f"{c.result.facts_per_parameter:.3f}", str(FACTS_PER_PARAMETER)]
            for c in cells
        ]  # fmt: skip
        return Table(header, rows)

    def plot(self, cells: Sequence[ParametersCell]) -> Plot:
        """Facts against parameters."""
        curves = []
        for shape in SUBJECTS:
            own = sorted((c.result.parameters, c.result.facts) for c in cells if c.job.shape == shape)
            curves += [Curve(shape, [(float(x), float(y)) for x, y in own])] if own else []
        ends = [float(f(c.result.parameters for c in cells)) for f in (min, max)]
        law = Curve(f"{FACTS_PER_PARAMETER} facts a parameter", [(x, FACTS_PER_PARAMETER * x) for x in ends], law=True)
        return Plot("parameters", "facts recalled at 99 %", [*curves, law])

    def _recall(self, task: Task, job: ParametersJob, width: int) -> float:
        size = size_of(job.shape, width)
        return trained(
            task, size, steps=job.steps, learning_rate=LEARNING_RATE, batch=BATCH, goal=LIKELY, seed=job.seed
        )[1]


def size_of(shape: str, width: int) -> Size:
    """H d_h = d without an MLP; with one half of that, and m = 3/4 d."""
    if shape == "attention":
        return Size(width, HEADS, width // HEADS, 0)
    return Size(width, HEADS, max(1, width // (2 * HEADS)), 3 * width // 4)


def parameters(size: Size) -> int:
    """All that is trained."""
    return size.attention_parameters + size.mlp_parameters
