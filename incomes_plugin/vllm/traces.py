"""What requests took of the edits they read, until the server asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch

from incomes_plugin.gist.edit import EditKey
from incomes_plugin.pool.picked import PickedEdit
from incomes_plugin.selection.attribution import Attribution, by_edit

Choice: TypeAlias = tuple[int, int]
"""(prompt, answer): which of the prompts of a request, and which of the answers to it."""


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
    snapshot: str | None
    answers: dict[Choice, Taken] = field(default_factory=dict)


@dataclass(frozen=True)
class Traced:
    """What the answers to one request of a caller took.

    Attributes:
        mean: over all answers.
        answers: by (prompt of the caller's request, answer to it), both from 0.
    """

    mean: Attribution
    answers: dict[Choice, Attribution]


class Traces:
    """Traces by name, until they are taken: the server takes the trace of every request, of aborted ones too.

    A name belongs to the snapshot of the request that used it first; what reads another one is not traced under it.

    Args:
        num_layers: L'.
    """

    def __init__(self, num_layers: int) -> None:
        self._num_layers = num_layers
        self._traces: dict[str, _Trace] = {}

    def add(self, name: str, snapshot: str | None, choice: Choice, taken: Taken) -> None:
        """Keep what an answer takes; computed anew after a preemption, it counts once."""
        trace = self._traces.setdefault(name, _Trace(snapshot))
        if trace.snapshot == snapshot:
            trace.answers[choice] = taken

    def take(self, name: str) -> Traced | None:
        """Attribution under a name, which is free again then; None when nothing was traced."""
        if name not in self._traces:
            return None
        answers = self._traces.pop(name).answers
        weights = {choice: answers[choice].by_edit(self._num_layers) for choice in sorted(answers)}
        total: dict[EditKey, float] = {}
        for answer in weights.values():
            for edit, weight in answer.items():
                total[edit] = total.get(edit, 0.0) + weight / len(weights)
        return Traced(by_edit(total), {choice: by_edit(answer) for choice, answer in weights.items()})
