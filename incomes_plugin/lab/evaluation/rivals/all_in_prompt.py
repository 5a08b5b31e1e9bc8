"""All edits in the prompt, in random order, until the context is full. What does not fit is not known to the model."""

from __future__ import annotations

import random
from collections.abc import Sequence

from incomes_plugin.lab.evaluation.interface import (
    Answer,
    Done,
    EvalEdit,
    EvalQuestion,
    EvalSettings,
    Generator,
    messages,
    nothing,
)
from incomes_plugin.lab.evaluation.rivals.room import Room

_NOTHING = EvalQuestion("", "unrelated", None, "", (), None, cloze=False)


class AllInPrompt:
    """One seeded order of the edits for all questions, so that the engine computes it once.

    Each question gets the beginning of it that fits.
    """

    name = "all-in-prompt"

    def __init__(self, generator: Generator, settings: EvalSettings) -> None:
        self._generator = generator
        self._settings = settings
        self._room = Room(generator, settings)
        self._order: Sequence[EvalEdit] = ()

    def prepare(self, edits: Sequence[EvalEdit]) -> None:
        """Shuffle the edits, so that which of them are cut off does not depend on time or topic; then drop those that
        never fit."""
        shuffled = random.Random(self._settings.seed).sample(edits, len(edits))
        self._order = self._room.fitting(_NOTHING, shuffled)

    def ask(self, questions: Sequence[EvalQuestion], done: Done = nothing) -> list[Answer]:
        """Ask with as many edits in front as fit."""
        contexts = [self._room.fitting(question, self._order) for question in questions]
        prompts = [self._generator.chat_ids(messages(q, c)) for q, c in zip(questions, contexts, strict=True)]
        return self._generator.generate(prompts, None, self._settings.max_answer_tokens, done)

    def close(self) -> None:
        """Hold nothing."""


def all_in_prompt(generator: Generator, settings: EvalSettings) -> AllInPrompt:
    """Method `all-in-prompt`."""
    return AllInPrompt(generator, settings)
