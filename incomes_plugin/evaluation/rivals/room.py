"""How many edits fit in front of a question: as many as the model's context holds beside question and answer."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from incomes_plugin.evaluation.interface import EditText, EvalSettings, Generator, Question, messages


class Room:
    """The prompt budget of one model.

    Args:
        generator: its chat template, tokenizer and context length count.
        settings: the answer's room is kept free.
    """

    def __init__(self, generator: Generator, settings: EvalSettings) -> None:
        self._generator = generator
        self._tokens = generator.max_context_tokens - settings.max_answer_tokens

    def fitting(self, question: Question, ranked: Sequence[EditText]) -> Sequence[EditText]:
        """The longest beginning of `ranked` that fits; empty if the question alone is too long."""
        most = min(len(ranked), self._tokens)  # no text is shorter than a token
        return ranked[
            : bisect_right(range(1, most + 1), self._tokens, key=lambda n: self._length(question, ranked[:n]))
        ]

    def _length(self, question: Question, context: Sequence[EditText]) -> int:
        return len(self._generator.chat_ids(messages(question, context)))
