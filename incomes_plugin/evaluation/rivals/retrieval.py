"""Retrieval into the prompt: the edits most like the question stand in front of it, the model reads them there.

Of the edits found those that fit are kept, best first; they are shown oldest first, so that of two that contradict each
other the later one is read last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from incomes_plugin.evaluation.interface import Answer, EditText, EvalSettings, Generator, Question, messages
from incomes_plugin.evaluation.rivals.bm25 import Bm25
from incomes_plugin.evaluation.rivals.dense import Dense
from incomes_plugin.evaluation.rivals.plain_model import load_plain
from incomes_plugin.evaluation.rivals.room import Room


class Index(Protocol):
    """Something that finds texts."""

    def best(self, query: str, count: int) -> list[int]:
        """Places of at most `count` texts, best first."""
        ...


IndexFactory = Callable[[Generator, Sequence[str]], Index]


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
        self._edits: Sequence[EditText] = ()
        self._index: Index | None = None

    def prepare(self, edits: Sequence[EditText]) -> None:
        """Index all texts."""
        self._edits = edits
        self._index = self._make_index(self._generator, [edit.text for edit in edits]) if edits else None

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """Answers to questions with their edits in front; attributed is the edit that was found first."""
        found = [self._find(question) for question in questions]
        prompts = [self._prompt(q, edits) for q, edits in zip(questions, found, strict=True)]
        answers = self._generator.generate(prompts, None, self._settings.max_answer_tokens)
        return [
            replace(answer, attributed=edits[0].index, attributed_weight=1.0) if edits else answer
            for answer, edits in zip(answers, found, strict=True)
        ]

    def _find(self, question: Question) -> Sequence[EditText]:
        if self._index is None:
            return ()
        ranked = [self._edits[place] for place in self._index.best(question.prompt, self._top)]
        return self._room.fitting(question, ranked)

    def _prompt(self, question: Question, edits: Sequence[EditText]) -> list[int]:
        return self._generator.chat_ids(messages(question, sorted(edits, key=lambda edit: edit.index)))


def _bm25(_generator: Generator, texts: Sequence[str]) -> Index:
    return Bm25(texts)


def _dense(generator: Generator, texts: Sequence[str]) -> Index:
    return Dense(load_plain(generator.model_dir), generator.tokenizer, texts)


def bm25_1(generator: Generator, settings: EvalSettings) -> Retrieval:
    """Method `rag-bm25-1`."""
    return Retrieval("rag-bm25-1", generator, settings, _bm25, top=1)


def bm25_5(generator: Generator, settings: EvalSettings) -> Retrieval:
    """Method `rag-bm25-5`."""
    return Retrieval("rag-bm25-5", generator, settings, _bm25, top=5)


def dense_1(generator: Generator, settings: EvalSettings) -> Retrieval:
    """Method `rag-dense-1`."""
    return Retrieval("rag-dense-1", generator, settings, _dense, top=1)


def dense_5(generator: Generator, settings: EvalSettings) -> Retrieval:
    """Method `rag-dense-5`."""
    return Retrieval("rag-dense-5", generator, settings, _dense, top=5)
