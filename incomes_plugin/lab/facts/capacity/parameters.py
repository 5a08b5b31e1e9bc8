"""Facts against parameters: which one-layer transformers learn S R facts, with an MLP and without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from incomes_plugin.lab.facts.capacity.experiment import Claim, Curve, Experiment, Measurement, Plot, Table
from incomes_plugin.lab.facts.capacity.task import Task
from incomes_plugin.lab.facts.capacity.transformer import Size, trained
from incomes_plugin.lab.facts.theory import FACTS_PER_PARAMETER, LIKELY

CHOICES = 8
HEADS = 8
STEPS = 4000
BATCH = 512
LEARNING_RATE = 3e-2
LEAST_FACTS_PER_PARAMETER = 0.1
SIZES = (
    (8, 16, 1, 12), (8, 16, 2, 0), (16, 24, 2, 12), (16, 24, 2, 16), (16, 24, 3, 0), (24, 32, 3, 24), (24, 32, 3, 32),
    (24, 40, 5, 0), (32, 40, 4, 48),
)  # fmt: skip
"""S = R, d, d_h, m: around a tenth of a fact for every parameter."""


@dataclass(frozen=True)
class ParametersJob:
    """One model: S = R, width d, head dimension d_h of eight heads, hidden units m."""

    subjects: int
    width: int
    head_dim: int
    hidden: int
    seed: int = 0
    steps: int = STEPS

    @property
    def size(self) -> Size:
        """Of the model."""
        return Size(self.width, HEADS, self.head_dim, self.hidden)

    @property
    def shape(self) -> str:
        """In words."""
        return "attention + MLP" if self.hidden else "attention"


@dataclass(frozen=True)
class ParametersResult:
    """What it learned.

    Attributes:
        facts: S R.
        parameters: all that is trained: attention, MLP and biases.
        recall: share of facts.
        facts_per_parameter: facts recalled / parameters.
    """

    facts: int
    parameters: int
    recall: float
    facts_per_parameter: float


ParametersCell = Measurement[ParametersJob, ParametersResult]


class Parameters(Experiment[ParametersJob, ParametersResult]):
    """Models of several sizes."""

    name = "parameters"
    title = "Facts of one-layer transformers against their parameters"
    job_type = ParametersJob
    result_type = ParametersResult

    def jobs(self, *, quick: bool) -> list[ParametersJob]:
        """S = R from 8 to 32."""
        return [ParametersJob(4, 12, 1, 8, steps=100)] if quick else [ParametersJob(*size) for size in SIZES]

    def measure(self, job: ParametersJob) -> ParametersResult:
        """Train one."""
        task, size = Task(job.subjects, job.subjects, CHOICES, job.seed), job.size
        recall = trained(
            task, size, steps=job.steps, learning_rate=LEARNING_RATE, batch=BATCH, goal=LIKELY, seed=job.seed
        )[1]
        parameters = size.attention_parameters + size.mlp_parameters
        return ParametersResult(task.facts, parameters, recall, recall * task.facts / parameters)

    def checks(self, cells: Sequence[ParametersCell]) -> list[Claim]:
        """The densest model that recalls 99 %, for each shape."""
        return [_densest(cells, shape) for shape in dict.fromkeys(cell.job.shape for cell in cells)]

    def table(self, cells: Sequence[ParametersCell]) -> Table:
        """One line a model."""
        header = (
            "S = R",
            "facts",
            "shape",
            "d",
            "H d_h",
            "m",
            "parameters",
            "recall",
            "facts per parameter",
            "published",
        )
        rows = [
            [str(c.job.subjects), f"{c.result.facts:,}", c.job.shape, str(c.job.width), str(HEADS * c.job.head_dim),
             str(c.job.hidden), f"{c.result.parameters:,}", f"{c.result.recall:.2%}",
             f"{c.result.facts_per_parameter:.3f}", str(FACTS_PER_PARAMETER)]
            for c in cells
        ]  # fmt: skip
        return Table(header, rows)

    def plot(self, cells: Sequence[ParametersCell]) -> Plot:
        """Facts against parameters, of models that recall 99 %."""
        curves = []
        for shape in dict.fromkeys(cell.job.shape for cell in cells):
            own = [(float(c.result.parameters), float(c.result.facts)) for c in _learned(cells, shape)]
            curves += [Curve(shape, sorted(own))] if own else []
        ends = [float(f(c.result.parameters for c in cells)) for f in (min, max)]
        law = Curve(f"{FACTS_PER_PARAMETER} facts a parameter", [(x, FACTS_PER_PARAMETER * x) for x in ends], law=True)
        return Plot("parameters", "facts recalled at 99 %", [*curves, law])


def _learned(cells: Sequence[ParametersCell], shape: str) -> list[ParametersCell]:
    return [cell for cell in cells if cell.job.shape == shape and cell.result.recall >= LIKELY]


def _densest(cells: Sequence[ParametersCell], shape: str) -> Claim:
    best = max(_learned(cells, shape), key=lambda cell: cell.result.facts_per_parameter, default=None)
    density = best.result.facts_per_parameter if best else 0.0
    found = f"{density:.3f}: {best.result.recall:.2%} of {best.result.facts:,} facts" if best else "none reached 99 %"
    bound = f"at least {LEAST_FACTS_PER_PARAMETER}, at 99 % recall"
    return Claim(f"{shape}: facts per parameter", bound, found, density >= LEAST_FACTS_PER_PARAMETER)
