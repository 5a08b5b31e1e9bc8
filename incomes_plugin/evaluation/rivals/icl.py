"""All edits in the prompt, in random order, until the context is full. What does not fit is not known to the model."""

from __future__ import annotations

import random
from collections.abc import Sequence

from incomes_plugin.evaluation.interface import Answer, EditText, EvalSettings, Generator, Question, messages
from incomes_plugin.evaluation.rivals.room import Room

_NOTHING = Question("", "unrelated", None, "", (), None, cloze=False)


class AllInPrompt:
    """One seeded order of the edits for all questions; each question gets the beginning of it that fits.

    Attributes:
        fitted: edits in the prompt of each question so far.
    """

    name = "icl"

    def __init__(self, generator: Generator, settings: EvalSettings) -> None:
        self._generator = generator
        self._settings = settings
        self._room = Room(generator, settings)
        self._order: Sequence[EditText] = ()
        self.fitted: list[int] = []

    def prepare(self, edits: Sequence[EditText]) -> None:
        """Shuffle, so that what is cut off says nothing about time or topic; then cut off what never fits."""
        shuffled = random.Random(self._settings.seed).sample(edits, len(edits))
        self._order = self._room.fitting(_NOTHING, shuffled)

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """Ask with as many edits in front as fit."""
        contexts = [self._room.fitting(question, self._order) for question in questions]
        self.fitted += [len(context) for context in contexts]
        prompts = [self._generator.chat_ids(messages(q, c)) for q, c in zip(questions, contexts, strict=True)]
        return self._generator.generate(prompts, None, self._settings.max_answer_tokens)


def all_in_prompt(generator: Generator, settings: EvalSettings) -> AllInPrompt:
    """Method `icl`."""
    return AllInPrompt(generator, settings)
