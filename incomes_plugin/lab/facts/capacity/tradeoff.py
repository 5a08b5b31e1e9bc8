"""Value parameters or MLP parameters: either holds the facts, as long as attention can find subject and relation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from incomes_plugin.lab.facts.capacity.experiment import Claim, Curve, Experiment, Measurement, Plot, Table
from incomes_plugin.lab.facts.capacity.task import Task
from incomes_plugin.lab.facts.capacity.transformer import Size, trained
from incomes_plugin.lab.facts.theory import LIKELY

SUBJECTS, CHOICES, WIDTH, HEADS = 16, 8, 24, 8
HEAD_DIMS = (1, 2, 3)
HIDDEN = (0, 4, 8, 16, 24, 32)
STEPS = 2000
BATCH = 256
LEARNING_RATE = 3e-2
GOALS = (0.95, LIKELY)


@dataclass(frozen=True)
class TradeoffJob:
    """One model of width 24 with 8 heads: head dimension and hidden units."""

    head_dim: int
    hidden: int
    seed: int = 0
    steps: int = STEPS


@dataclass(frozen=True)
class TradeoffResult:
    """What it learned.

    Attributes:
        recall: share of 256 facts.
        value_parameters, mlp_parameters: H d_h d and 2 m d + m.
    """

    recall: float
    value_parameters: int
    mlp_parameters: int


TradeoffCell = Measurement[TradeoffJob, TradeoffResult]


class Tradeoff(Experiment[TradeoffJob, TradeoffResult]):
    """A grid over both."""

    name = "tradeoff"
    title = "Where 256 facts can be: value parameters or MLP parameters"
    job_type = TradeoffJob
    result_type = TradeoffResult

    def jobs(self, *, quick: bool) -> list[TradeoffJob]:
        """The grid."""
        if quick:
            return [TradeoffJob(1, 4, steps=50)]
        return [TradeoffJob(dim, hidden) for dim in HEAD_DIMS for hidden in HIDDEN]

    def measure(self, job: TradeoffJob) -> TradeoffResult:
        """Train one."""
        task, size = Task(SUBJECTS, SUBJECTS, CHOICES, job.seed), Size(WIDTH, HEADS, job.head_dim, job.hidden)
        recall = trained(
            task, size, steps=job.steps, learning_rate=LEARNING_RATE, batch=BATCH, goal=LIKELY, seed=job.seed
        )[1]
        return TradeoffResult(recall, size.value_parameters, size.mlp_parameters)

    def checks(self, cells: Sequence[TradeoffCell]) -> list[Claim]:
        """More value parameters need fewer hidden units; the last percent takes more steps than the search has."""
        return [_falls(cells, goal) for goal in GOALS]

    def table(self, cells: Sequence[TradeoffCell]) -> Table:
        """Recall; value parameters down, hidden units across."""
        found = {(c.job.head_dim, c.job.hidden): f"{c.result.recall:.1%}" for c in cells}
        rows = [
            [f"{HEADS * dim * WIDTH}", *(found.get((dim, hidden), "–") for hidden in HIDDEN)] for dim in HEAD_DIMS
        ]  # fmt: skip
        return Table(("value parameters", *(f"m = {hidden}" for hidden in HIDDEN)), rows)

    def plot(self, cells: Sequence[TradeoffCell]) -> Plot:
        """Recall against MLP parameters, a line for each head dimension."""
        curves = []
        for dim in HEAD_DIMS:
            own = sorted((c.result.mlp_parameters, c.result.recall) for c in cells if c.job.head_dim == dim)
            label = f"{HEADS * dim * WIDTH} value parameters"
            curves += [Curve(label, [(float(x), y) for x, y in own])] if own else []
        return Plot("MLP parameters", "share recalled", curves, logarithmic=False, levels=(("99 %", LIKELY),))


def _falls(cells: Sequence[TradeoffCell], goal: float) -> Claim:
    needed = {dim: hidden for dim in HEAD_DIMS if (hidden := _least(cells, dim, goal)) is not None}
    listed = ", ".join(f"{HEADS * dim * WIDTH} value parameters: m = {hidden}" for dim, hidden in needed.items())
    figures = list(needed.values())
    falls = len(figures) > 1 and figures == sorted(figures, reverse=True) and figures[0] > figures[-1]
    return Claim(f"hidden units that {goal:.0%} needs", "fall with the value parameters", listed or "none found", falls)


def _least(cells: Sequence[TradeoffCell], dim: int, goal: float) -> int | None:
    """The fewest hidden units that recall `goal` of the facts."""
    return min((c.job.hidden for c in cells if c.job.head_dim == dim and c.result.recall >= goal), default=None)
