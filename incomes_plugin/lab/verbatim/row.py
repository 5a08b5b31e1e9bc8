"""One text on its way into vectors: parameters, optimiser and schedule of its own: no text acts upon another."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from incomes_plugin.errors import InvalidValue
from incomes_plugin.lab.verbatim.precision import Precision
from incomes_plugin.lab.verbatim.targets import CramTarget


@dataclass(frozen=True)
class CramSettings:
    """How texts are optimised.

    Attributes:
        precision: in which vectors are stored; texts are judged by vectors of that precision.
        margin: logits by which every token must lead before a text is accepted.
        learning_rate: of AdamW, after `warmup_steps`; it falls as a cosine to a hundredth.
        max_steps: at one number of vectors; then there are half as many again.
        patience: steps without a loss that is 1 % lower, after which the number of vectors grows early.
        leading_weight, leading_tokens: the first tokens count more: nothing but the vectors tells them.
        low_dim: search in so many directions, which are learned too, instead of in all; None = in all.
        most_rows: texts in a batch. most_positions: positions in a batch, padding included.
    """

    precision: Precision = Precision.BFLOAT16
    margin: float = 1.0
    learning_rate: float = 0.1
    warmup_steps: int = 10
    max_steps: int = 600
    patience: int = 150
    leading_weight: float = 3.0
    leading_tokens: int = 2
    low_dim: int | None = None
    most_rows: int = 32
    most_positions: int = 2048

    def __post_init__(self) -> None:
        for name in ("learning_rate", "max_steps", "patience", "leading_weight", "most_rows", "most_positions"):
            if getattr(self, name) <= 0:
                raise InvalidValue(f"{name} is {getattr(self, name)}; it must be greater than 0", param=name)
        if self.margin < 0:
            raise InvalidValue(f"margin is {self.margin}; it is a number of logits, 0 or more", param="margin")
        if self.low_dim is not None and self.low_dim < 1:
            raise InvalidValue(f"low_dim is {self.low_dim}; it is a number of directions, 1 or more", param="low_dim")


@dataclass(frozen=True)
class CramJob:
    """A text to be crammed.

    Attributes:
        start: `[K, hidden]` float32: as many vectors as are tried first, and where they begin.
        most_vectors: give up when that many do not hold it.
    """

    target: CramTarget
    start: torch.Tensor
    most_vectors: int


class CramRow:
    """State of one job.

    Attributes:
        steps: in all. steps_here: since the number of vectors grew.
        demand: margin that is asked for; more than the settings' after the decoder refused a candidate.
        refused: how often that happened.
    """

    def __init__(self, job: CramJob, settings: CramSettings) -> None:
        self.job, self.settings = job, settings
        self.steps = self.refused = 0
        self.demand = settings.margin
        weights = torch.ones(len(job.target.ids) + 1)
        weights[: settings.leading_tokens] = settings.leading_weight
        self.weights = weights / weights.sum()
        self.restart(job.start)

    def restart(self, vectors: torch.Tensor) -> None:
        """Begin anew at `vectors` `[K, hidden]`, with a fresh optimiser."""
        start = vectors.detach().float().clone()
        self.offset: torch.Tensor | None = None
        if self.settings.low_dim is None:
            self.parameters = [start.requires_grad_()]
        else:
            count = min(self.settings.low_dim, start.shape[1])
            generator = torch.Generator().manual_seed(len(start))
            directions = torch.linalg.qr(torch.randn(start.shape[1], count, generator=generator)).Q.T.contiguous()
            self.offset = start
            self.parameters = [torch.zeros(len(start), count).requires_grad_(), directions.requires_grad_()]
        self.optimizer = torch.optim.AdamW(self.parameters, betas=(0.9, 0.9), weight_decay=0.01)
        self.steps_here = self.since_best = 0
        self.best = math.inf

    @property
    def num_vectors(self) -> int:
        """K."""
        return len(self.parameters[0])

    def vectors(self) -> torch.Tensor:
        """`[K, hidden]` float32, differentiable, rounded as they would be stored."""
        raw = self.parameters[0] if self.offset is None else self.offset + self.parameters[0] @ self.parameters[1]
        return self.settings.precision.as_stored(raw)

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        s = self.settings
        warm = min(1.0, (self.steps_here + 1) / max(s.warmup_steps, 1))
        fall = 0.5 * (1 + math.cos(math.pi * min(self.steps_here / s.max_steps, 1.0)))
        return s.learning_rate * warm * max(fall, 0.01)

    def step(self, loss: float) -> None:
        """Move along the gradient that the last pass left, whose mean loss was `loss`."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.steps += 1
        self.steps_here += 1
        self.since_best = 0 if loss < 0.99 * self.best else self.since_best + 1
        self.best = min(self.best, loss)

    @property
    def stuck(self) -> bool:
        """Whether this number of vectors has had its chance."""
        return self.steps_here >= self.settings.max_steps or self.since_best >= self.settings.patience

    def grown(self) -> int:
        """The next number of vectors; more than `most_vectors` = give up."""
        return self.num_vectors + max(1, self.num_vectors // 2)

    _COUNTS = ("steps", "steps_here", "since_best", "best", "demand", "refused")

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Tensors and numbers from which `restore` goes on as if nothing had happened."""
        tensors = {f"p{i}": p.detach() for i, p in enumerate(self.parameters)}
        if self.offset is not None:
            tensors["offset"] = self.offset
        for i, parameter in enumerate(self.parameters):
            tensors |= {f"a{i}.{key}": value for key, value in self.optimizer.state.get(parameter, {}).items()}
        return tensors, {name: getattr(self, name) for name in self._COUNTS}

    def restore(self, tensors: dict[str, torch.Tensor], numbers: dict[str, Any]) -> None:
        """Take over what `state` gave."""
        self.offset = tensors.get("offset")
        self.parameters = [tensors[f"p{i}"].clone().requires_grad_() for i in range(1 if self.offset is None else 2)]
        self.optimizer = torch.optim.AdamW(self.parameters, betas=(0.9, 0.9), weight_decay=0.01)
        for i, parameter in enumerate(self.parameters):
            own = {key.split(".", 1)[1]: value.clone() for key, value in tensors.items() if key.startswith(f"a{i}.")}
            if own:
                self.optimizer.state[parameter] = own
        for name in self._COUNTS:
            setattr(self, name, numbers[name])
