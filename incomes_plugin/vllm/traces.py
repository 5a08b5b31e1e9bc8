"""What requests took of the edits they read, until the server asks for it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from incomes_plugin.gist.types import EditKey
from incomes_plugin.pool.picked import PickedEdit
from incomes_plugin.selection.attribution import Attribution, by_edit

_MAX_KEPT = 4096


@dataclass(eq=False)
class Taken:
    """What one answer took of its picks.

    Attributes:
        edits: picked edits and their numbers of tokens.
        weights: `[E]` float32, of each token of the picks, summed over rows and reading layers.
        rows: rows that read.
    """

    edits: tuple[tuple[EditKey, int], ...]
    weights: torch.Tensor
    rows: int = 0

    @classmethod
    def nothing_yet(cls, picks: Sequence[PickedEdit], device: torch.device) -> Taken:
        """Before the first row has read."""
        edits = tuple((pick.edit, int(pick.keys.shape[2])) for pick in picks)
        return cls(edits, torch.zeros(sum(tokens for _, tokens in edits), device=device))

    def by_edit(self, num_layers: int) -> dict[EditKey, float]:
        """Mean weight of each edit over rows and layers."""
        if not self.rows:
            return {}
        parts = self.weights.split([tokens for _, tokens in self.edits])
        return {
            edit: float(part.sum()) / (self.rows * num_layers)
            for (edit, _), part in zip(self.edits, parts, strict=True)
        }


@dataclass(eq=False)
class _Trace:
    owner: str | None
    answers: list[Taken] = field(default_factory=list)


class Traces:
    """Traces by name. A name belongs to the request that used it first; its answers (n > 1) are averaged.

    Args:
        num_layers: L'.
    """

    def __init__(self, num_layers: int) -> None:
        self._num_layers = num_layers
        self._traces: OrderedDict[str, _Trace] = OrderedDict()

    def add(self, name: str, owner: str | None, taken: Taken) -> None:
        """Keep what an answer takes; one whose request does not own the name is not traced.

        Args:
            owner: secret of the request.
        """
        trace = self._traces.setdefault(name, _Trace(owner))
        if trace.owner == owner:
            trace.answers.append(taken)
        while len(self._traces) > _MAX_KEPT:
            self._traces.popitem(last=False)

    def take(self, name: str) -> Attribution | None:
        """Attribution under a name, which is free again then; None when nothing was traced."""
        trace = self._traces.pop(name, None)
        if trace is None:
            return None
        total: dict[EditKey, float] = {}
        for taken in trace.answers:
            for edit, weight in taken.by_edit(self._num_layers).items():
                total[edit] = total.get(edit, 0.0) + weight / len(trace.answers)
        return by_edit(total)
