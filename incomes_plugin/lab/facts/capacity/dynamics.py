"""In which order a model learns a fact: first the relation, then the subject. In between, all answers of the relation
are equally likely.

    linear   logits = sum_t w[x_t] V[:, x_t], one-hot embeddings, gradient descent       the paper's section 6
    softmax  the one-layer transformer, by Adam

While it guesses among the D answers of the right relation the loss is ln D: it "hallucinates".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from incomes_plugin.lab.facts.capacity.experiment import Claim, Curve, Experiment, Measurement, Plot, Table
from incomes_plugin.lab.facts.capacity.task import Task
from incomes_plugin.lab.facts.capacity.transformer import OneLayer, Size

CHOICES = 8
STEPS = 900
LINEAR_RATE, LINEAR_START = 2.0, 0.02
SOFTMAX_RATE, SOFTMAX_SIZE = 3e-3, Size(32, 8, 4, 32)
NEAR, SURE = 0.1, 0.9
_LOOK = 15


@dataclass(frozen=True)
class DynamicsJob:
    """One training run: which model, S subjects, R relations."""

    model: str
    subjects: int
    relations: int
    seed: int = 0
    steps: int = STEPS


@dataclass(frozen=True)
class DynamicsResult:
    """Curves, every 15 steps.

    Attributes:
        loss: cross-entropy.
        relation: probability of all answers of the right relation together.
        right: probability of the right answer.
    """

    loss: list[float]
    relation: list[float]
    right: list[float]

    @property
    def plateau_steps(self) -> int:
        """Number of steps in which the loss is within a tenth of ln D and the relation's answers together have a
        probability of 0.9 or more."""
        level = math.log(CHOICES)
        flat = [abs(x - level) < NEAR * level and r > SURE for x, r in zip(self.loss, self.relation, strict=True)]
        return _LOOK * sum(flat)


DynamicsCell = Measurement[DynamicsJob, DynamicsResult]


class Dynamics(Experiment[DynamicsJob, DynamicsResult]):
    """Training curves."""

    name = "dynamics"
    title = "The relation is learned first: the plateau at ln D"
    job_type = DynamicsJob
    result_type = DynamicsResult

    def jobs(self, *, quick: bool) -> list[DynamicsJob]:
        """Many subjects a relation, and as many subjects as relations."""
        if quick:
            return [DynamicsJob("linear", 64, 8, steps=60)]
        return [DynamicsJob("linear", 64, 8), DynamicsJob("softmax", 64, 8), DynamicsJob("linear", 16, 16)]

    def measure(self, job: DynamicsJob) -> DynamicsResult:
        """Train, all facts in every step."""
        task = Task(job.subjects, job.relations, CHOICES, job.seed)
        generator = torch.Generator().manual_seed(job.seed)
        logits, optimizer = _linear(task) if job.model == "linear" else _softmax(task, job.seed)
        curves: list[tuple[float, float, float]] = []
        for step in range(job.steps):
            tokens, answers = task.ask(torch.arange(task.facts), generator)
            found = logits(tokens)
            loss = F.cross_entropy(found, answers)
            if step % _LOOK == 0:
                curves.append((round(loss.item(), 4), *_masses(found.detach(), answers)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return DynamicsResult(*(list(curve) for curve in zip(*curves, strict=True)))

    def checks(self, cells: Sequence[DynamicsCell]) -> list[Claim]:
        """The plateau where theory has it: many subjects a relation."""
        found = [c for c in cells if c.job.model == "linear" and c.job.subjects > c.job.relations]
        return [
            Claim(f"plateau at ln {CHOICES} = {math.log(CHOICES):.2f}, S = {c.job.subjects}, R = {c.job.relations}",
                  "visible: 100 steps or more", f"{c.result.plateau_steps} of {c.job.steps} steps",
                  c.result.plateau_steps >= 100)
            for c in found
        ]  # fmt: skip

    def table(self, cells: Sequence[DynamicsCell]) -> Table:
        """How long the plateau is, and what is known on it."""
        header = ("model", "S", "R", "steps on the plateau", "right there", "loss at the end")
        rows = [
            [c.job.model, str(c.job.subjects), str(c.job.relations), str(c.result.plateau_steps),
             _right_there(c.result), f"{c.result.loss[-1]:.2f}"]
            for c in cells
        ]  # fmt: skip
        return Table(header, rows)

    def plot(self, cells: Sequence[DynamicsCell]) -> Plot:
        """Loss against steps."""
        curves = [
            Curve(f"{c.job.model}, S = {c.job.subjects}, R = {c.job.relations}",
                  [(float(_LOOK * place), loss) for place, loss in enumerate(c.result.loss)])
            for c in cells
        ]  # fmt: skip
        return Plot("steps", "cross-entropy", curves, logarithmic=False, levels=(("ln D", math.log(CHOICES)),))


Trainable = tuple[Callable[[torch.Tensor], torch.Tensor], torch.optim.Optimizer]


def _linear(task: Task) -> Trainable:
    weights = torch.full((task.tokens,), LINEAR_START, requires_grad=True)
    values = torch.zeros(task.answers, task.tokens, requires_grad=True)

    def logits(tokens: torch.Tensor) -> torch.Tensor:
        counts = F.one_hot(tokens, task.tokens).float().sum(dim=1)
        return (counts * weights) @ values.T

    return logits, torch.optim.SGD([weights, values], lr=LINEAR_RATE)


def _softmax(task: Task, seed: int) -> Trainable:
    model = OneLayer(task, SOFTMAX_SIZE, seed)
    return model, torch.optim.AdamW(model.parameters(), lr=SOFTMAX_RATE, weight_decay=0.0)


def _masses(logits: torch.Tensor, answers: torch.Tensor) -> tuple[float, float]:
    """Mean probability of the relation's answers, and of the right one."""
    shares = logits.softmax(dim=-1)
    relations = torch.arange(shares.shape[-1]) // CHOICES
    own = relations[None] == (answers // CHOICES)[:, None]
    relation, right = (shares * own).sum(-1).mean(), shares.gather(1, answers[:, None]).mean()
    return round(float(relation), 4), round(float(right), 4)


def _right_there(result: DynamicsResult) -> str:
    level = math.log(CHOICES)
    on = [right for right, loss in zip(result.right, result.loss, strict=True) if abs(loss - level) < NEAR * level]
    return f"{sum(on) / len(on):.0%} (1 / D = {1 / CHOICES:.0%})" if on else "–"
