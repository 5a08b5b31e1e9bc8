"""A moving average of the trained weights: what is exported. Single steps move what 1,000 edits hang on.

Between two checkpoints 65 steps apart keys of the same edits turned by some 20 degrees, and success among 1,000 edits
went up and down with them (docs/experiments.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

MOMENTUM = 0.99
"""Share of the average that a step keeps: a memory of some 100 steps."""


class WeightAverage:
    """Average of a module's trained parameters.

    Args:
        module: parameters without gradient are left alone.
    """

    def __init__(self, module: nn.Module) -> None:
        self._trained = [p for p in module.parameters() if p.requires_grad]
        self._average = [p.detach().clone() for p in self._trained]

    @torch.no_grad()
    def update(self, momentum: float = MOMENTUM) -> None:
        """Move towards the present weights."""
        for average, present in zip(self._average, self._trained, strict=True):
            average.lerp_(present, 1 - momentum)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the module has the average for weights."""
        present = [p.detach().clone() for p in self._trained]
        self._write(self._average)
        try:
            yield
        finally:
            self._write(present)

    @torch.no_grad()
    def _write(self, values: list[torch.Tensor]) -> None:
        for parameter, value in zip(self._trained, values, strict=True):
            parameter.copy_(value)
