"""How many edits fit in front of a question: as many as the base's context holds beside question and answer."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from incomes_plugin.lab.evaluation.interface import EvalEdit, EvalQuestion, EvalSettings, Generator, messages


class Room:
    """The prompt budget of one base.

    Args:
        generator: its chat template, tokenizer and context length count.
        settings: the answer's room is kept free.
    """

    def __init__(self, generator: Generator, settings: EvalSettings) -> None:
        self._generator = generator
        self._tokens = generator.max_context_tokens - settings.max_answer_tokens
        self._lengths: dict[str, int] = {}

    def fitting(self, question: EvalQuestion, ranked: Sequence[EvalEdit]) -> Sequence[EvalEdit]:
        """The longest beginning of `ranked` that fits; empty if the question alone is too long.

        Lengths of texts are added up first, which is nearly exact, and the prompt is counted then.
        """
        room = self._tokens - self._length(question, ())
        fitting = bisect_right(list(accumulate(map(self._length_of, ranked))), room)
        while fitting and self._length(question, ranked[:fitting]) > self._tokens:
            fitting -= 1
        return ranked[:fitting]

    def _length(self, question: EvalQuestion, context: Sequence[EvalEdit]) -> int:
        return len(self._generator.chat_ids(messages(question, context)))

    def _length_of(self, edit: EvalEdit) -> int:
        """Tokens of a text and the newline behind it."""
        if edit.text not in self._lengths:
            ids = self._generator.tokenizer(edit.text, add_special_tokens=False)["input_ids"]
            self._lengths[edit.text] = len(ids) + 1
        return self._lengths[edit.text]
