"""Which tokens of a prompt are the question: what the last user turn says. Pure arithmetic on token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class PromptTemplate:
    """How the base's chat template frames texts, as token ids.

    Attributes:
        edit_prefix, edit_suffix: around an edit's text when it is captured, alone (a system turn of its own).
        turn_prefix: in front of what a user says, e.g. `<|im_start|>user\\n`.
        answer_prefix: from the end of what the user says to where the answer begins, e.g.
            `<|im_end|>\\n<|im_start|>assistant\\n`.
        line_ends: tokens that hold the end of a line.
    """

    edit_prefix: tuple[int, ...]
    edit_suffix: tuple[int, ...]
    turn_prefix: tuple[int, ...]
    answer_prefix: tuple[int, ...]
    line_ends: tuple[int, ...] = ()

    def capture_ids(self, text: Sequence[int]) -> list[int]:
        """Token ids of the prompt that captures an edit of these tokens."""
        return [*self.edit_prefix, *text, *self.edit_suffix]

    def question_span(self, prompt: Sequence[int], most: int) -> tuple[int, int]:
        """Start and end of the question in a prompt: the last user turn's text, its last `most` tokens at most.

        If a prompt does not end as the template ends (a plain completion), all of it is the question. A prompt of one
        token or more never has an empty question.
        """
        end = len(prompt)
        suffix = len(self.answer_prefix)
        if suffix and suffix < end and tuple(prompt[end - suffix :]) == self.answer_prefix:
            end -= suffix
        start = max(0, end - most)
        prefix = self.turn_prefix
        for place in range(end - len(prefix), start - len(prefix), -1):
            if prefix and place >= 0 and tuple(prompt[place : place + len(prefix)]) == prefix:
                start = max(start, place + len(prefix))
                break
        return min(start, max(end - 1, 0)), end

    def line_starts(self, question: Sequence[int]) -> tuple[int, ...]:
        """Places in a question (token ids) at which a further line begins."""
        ends = frozenset(self.line_ends)
        return tuple(
            place for place in range(1, len(question)) if question[place - 1] in ends and question[place] not in ends
        )
