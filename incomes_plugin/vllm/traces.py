"""Collects how much each request read of each edit, row by row, until the server asks and says where answers end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch

from incomes_plugin.errors import SelectionFailed
from incomes_plugin.gist.edit import EditKey
from incomes_plugin.pool.picked import PickedEdit
from incomes_plugin.selection.attribution import Attribution, by_edit
from incomes_plugin.vllm.ranks import Ranks

Choice: TypeAlias = tuple[int, int]
"""(prompt, answer): which of the prompts of a request, and which of the answers to it."""


@dataclass(eq=False)
class AnswerTrace:
    """How much one answer read of its picks.

    Attributes:
        edits: picked edits.
        rows: for each row, from the one that made the first token, a step's weights `[R, k]` and the row in them.
    """

    edits: tuple[EditKey, ...]
    rows: list[tuple[torch.Tensor, int]] = field(default_factory=list)

    @classmethod
    def nothing_yet(cls, picks: Sequence[PickedEdit]) -> AnswerTrace:
        """Before the first row has read."""
        return cls(tuple(pick.edit for pick in picks))

    def record(self, first: int, weights: torch.Tensor, rows: range) -> None:
        """Keep how much rows read. A row that is computed anew after a preemption replaces its former record.

        Args:
            first: token of the answer that the first of the rows made.
            weights: `[R, at least k]` of a step, of each edit, summed over reading layers: as wide as the answer of the
                step that has most picks needs.
            rows: of `weights`.
        """
        own = weights[:, : len(self.edits)]
        self.rows[first : first + len(rows)] = [(own, row) for row in rows]

    def by_edit(self, num_tokens: int, num_layers: int) -> dict[EditKey, float]:
        """Mean weight of each edit over the rows that made the answer, and over layers.

        Raises:
            SelectionFailed: the answer has more tokens than rows were seen.
        """
        if not self.edits or not num_tokens:
            return {}
        if len(self.rows) < num_tokens:
            raise SelectionFailed(f"an answer of {num_tokens} tokens has the weights of {len(self.rows)} rows only")
        total = torch.stack([weights[row] for weights, row in self.rows[:num_tokens]]).sum(0).tolist()
        return {edit: total[i] / (num_tokens * num_layers) for i, edit in enumerate(self.edits)}


@dataclass(eq=False)
class StepTrace:
    """How much the rows of a step read of each token of their picks.

    Attributes:
        weights: `[R, E]` float32, summed over the reading layers so far.
        edit_of: `[R, E]` int64, which of the row's picks a token belongs to.
        answers: whose rows they are: the answer's record, its first token made here, and its rows of `weights`.
        ranks: that have read with heads of their own.
    """

    weights: torch.Tensor
    edit_of: torch.Tensor
    answers: Sequence[tuple[AnswerTrace, int, range]]
    ranks: Ranks = field(default_factory=Ranks)

    def finish(self) -> None:
        """All layers have read: hand the weights over to the answers."""
        most_picks = max(len(trace.edits) for trace, _, _ in self.answers)
        of_edits = self.weights.new_zeros(len(self.weights), most_picks)
        for pick in range(most_picks):
            of_edits[:, pick] = self.weights.where(self.edit_of == pick, 0.0).sum(-1)
        of_edits = self.ranks.mean(of_edits)
        for trace, first, rows in self.answers:
            trace.record(first, of_edits, rows)


@dataclass(eq=False)
class _Trace:
    snapshot: str | None
    answers: dict[Choice, AnswerTrace] = field(default_factory=dict)


@dataclass(frozen=True)
class RequestTrace:
    """How much the answers to one request of a caller read.

    Attributes:
        mean: over all answers.
        answers: by (prompt of the caller's request, answer to it), both from 0.
    """

    mean: Attribution
    answers: dict[Choice, Attribution]


class Traces:
    """Traces by name, until they are taken: the server takes the trace of every request, of aborted ones too.

    A name belongs to the snapshot of the request that used it first. Requests that read another snapshot are not traced
    under that name.

    Args:
        num_layers: L'.
    """

    def __init__(self, num_layers: int) -> None:
        self._num_layers = num_layers
        self._traces: dict[str, _Trace] = {}

    def add(self, name: str, snapshot: str | None, choice: Choice, answer: AnswerTrace) -> None:
        """Keep the record of an answer; its rows come in while the answer is made."""
        trace = self._traces.setdefault(name, _Trace(snapshot))
        if trace.snapshot == snapshot:
            trace.answers[choice] = answer

    def take(self, name: str, tokens: Mapping[Choice, int]) -> RequestTrace | None:
        """Take the attribution kept under a name, which can then be used again; None when nothing was traced.

        Args:
            tokens: number of tokens of each answer. Rows beyond them made nothing that the caller got, and do not
                count. An answer that is not named has no attribution.

        Raises:
            SelectionFailed: rows of an answer are missing.
        """
        if name not in self._traces:
            return None
        answers = self._traces.pop(name).answers
        weights = {
            choice: answers[choice].by_edit(tokens.get(choice, 0), self._num_layers) for choice in sorted(answers)
        }
        total: dict[EditKey, float] = {}
        for answer in weights.values():
            for edit, weight in answer.items():
                total[edit] = total.get(edit, 0.0) + weight / len(weights)
        return RequestTrace(by_edit(total), {choice: by_edit(answer) for choice, answer in weights.items()})
