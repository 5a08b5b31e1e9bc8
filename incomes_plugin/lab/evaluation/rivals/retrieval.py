"""Retrieval into the prompt: the edits most like the question stand in front of it, the model reads them there.

Of the edits found those that fit are kept, best first; they are shown oldest first, so that of two that contradict each
other the later one is read last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

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
from incomes_plugin.lab.evaluation.rivals.bm25 import Bm25
from incomes_plugin.lab.evaluation.rivals.minilm import MiniLm
from incomes_plugin.lab.evaluation.rivals.room import Room


class Index(Protocol):
    """Something that finds texts."""

    def best(self, query: str, count: int) -> list[int]:
        """Places of at most `count` texts, best first."""
        ...


IndexFactory = Callable[[Sequence[str]], Index]


class Retrieval:
    """Search, then read.

    Args:
        index: makes the index of all edit texts.
        top: edits put into the prompt.
    """

    def __init__(
        self, name: str, generator: Generator, settings: EvalSettings, index: IndexFactory, *, top: int
    ) -> None:
        self.name = name
        self._generator = generator
        self._settings = settings
        self._make_index = index
        self._top = top
        self._room = Room(generator, settings)
        self._edits: Sequence[EvalEdit] = ()
        self._index: Index | None = None

    def prepare(self, edits: Sequence[EvalEdit]) -> None:
        """Index all texts."""
        self._edits = edits
        self._index = self._make_index([edit.text for edit in edits]) if edits else None

    def ask(self, questions: Sequence[EvalQuestion], done: Done = nothing) -> list[Answer]:
        """Answers to questions with their edits in front; `applied` are the edits as found, best first."""
        found = [self._find(question) for question in questions]
        prompts = [self._prompt(q, edits) for q, edits in zip(questions, found, strict=True)]
        answers = self._generator.generate(prompts, None, self._settings.max_answer_tokens, done)
        return [
            replace(answer, applied=tuple(edit.index for edit in edits))
            for answer, edits in zip(answers, found, strict=True)
        ]

    def close(self) -> None:
        """Hold nothing."""

    def _find(self, question: EvalQuestion) -> Sequence[EvalEdit]:
        if self._index is None:
            return ()
        ranked = [self._edits[place] for place in self._index.best(question.prompt, self._top)]
        return self._room.fitting(question, ranked)

    def _prompt(self, question: EvalQuestion, edits: Sequence[EvalEdit]) -> list[int]:
        return self._generator.chat_ids(messages(question, sorted(edits, key=lambda edit: edit.index)))


def bm25_1(generator: Generator, settings: EvalSettings) -> Retrieval:
    """Method `bm25-1`."""
    return Retrieval("bm25-1", generator, settings, Bm25, top=1)


def bm25_5(generator: Generator, settings: EvalSettings) -> Retrieval:
    """Method `bm25-5`."""
    return Retrieval("bm25-5", generator, settings, Bm25, top=5)


def minilm_1(generator: Generator, settings: EvalSettings) -> Retrieval:
    """Method `minilm-1`."""
    return Retrieval("minilm-1", generator, settings, MiniLm, top=1)


def minilm_5(generator: Generator, settings: EvalSettings) -> Retrieval:
    """Method `minilm-5`."""
    return Retrieval("minilm-5", generator, settings, MiniLm, top=5)
