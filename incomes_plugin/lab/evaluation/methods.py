"""Every method by name, and the three that need no module of their own: no edits, ours, the right edit in the prompt.

`METHODS[name](generator, settings)` makes one. A rival lives in `rivals/` and is imported when it is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from incomes_plugin.lab.evaluation.interface import (
    Answer,
    Done,
    EvalEdit,
    EvalQuestion,
    EvalSettings,
    Generator,
    Method,
    MethodFactory,
    PoolHandle,
    messages,
    nothing,
)


class NoEdits:
    """The base as it is."""

    name = "none"

    def __init__(self, generator: Generator, settings: EvalSettings) -> None:
        self._generator = generator
        self._settings = settings

    def prepare(self, edits: Sequence[EvalEdit]) -> None:
        """Take nothing in."""

    def ask(self, questions: Sequence[EvalQuestion], done: Done = nothing) -> list[Answer]:
        """Ask without any edit."""
        prompts = [self._generator.chat_ids(messages(q)) for q in questions]
        return self._generator.generate(prompts, None, self._settings.max_answer_tokens, done)

    def close(self) -> None:
        """Hold nothing."""


class Gists:
    """Ours: every edit in one pool, none in the prompt."""

    name = "ours"

    def __init__(self, generator: Generator, settings: EvalSettings) -> None:
        self._generator = generator
        self._settings = settings
        self.pool: PoolHandle | None = None

    def prepare(self, edits: Sequence[EvalEdit]) -> None:
        """Capture all edits."""
        self.pool = self._generator.add(edits)

    def ask(self, questions: Sequence[EvalQuestion], done: Done = nothing) -> list[Answer]:
        """Ask with the whole pool active."""
        prompts = [self._generator.chat_ids(messages(q)) for q in questions]
        return self._generator.generate(prompts, self.pool, self._settings.max_answer_tokens, done)

    def close(self) -> None:
        """Give the pool back."""
        if self.pool is not None:
            self._generator.release(self.pool)


class Oracle:
    """The edits the question is about in the prompt, and no other; a question about none is asked as it is."""

    name = "oracle"

    def __init__(self, generator: Generator, settings: EvalSettings) -> None:
        self._generator = generator
        self._settings = settings
        self._edits: dict[int, EvalEdit] = {}

    def prepare(self, edits: Sequence[EvalEdit]) -> None:
        """Remember the texts."""
        self._edits = {edit.index: edit for edit in edits}

    def ask(self, questions: Sequence[EvalQuestion], done: Done = nothing) -> list[Answer]:
        """Ask each question with its own edits in front."""
        prompts = [self._generator.chat_ids(messages(q, self._right(q))) for q in questions]
        return self._generator.generate(prompts, None, self._settings.max_answer_tokens, done)

    def close(self) -> None:
        """Hold nothing."""

    def _right(self, question: EvalQuestion) -> list[EvalEdit]:
        needs = question.needs or (() if question.edit is None else (question.edit,))
        return [self._edits[index] for index in needs]


def _rival(module: str, factory: str) -> MethodFactory:
    def make(generator: Generator, settings: EvalSettings) -> Method:
        made: Method = getattr(import_module(f"incomes_plugin.lab.evaluation.rivals.{module}"), factory)(
            generator, settings
        )
        return made

    return make


METHODS: dict[str, MethodFactory] = {
    "none": NoEdits,
    "ours": Gists,
    "oracle": Oracle,
    "all-in-prompt": _rival("all_in_prompt", "all_in_prompt"),
    "bm25-1": _rival("retrieval", "bm25_1"),
    "bm25-5": _rival("retrieval", "bm25_5"),
    "minilm-1": _rival("retrieval", "minilm_1"),
    "minilm-5": _rival("retrieval", "minilm_5"),
    "lora": _rival("lora", "lora"),
}
"""A rival's factory is `factory(generator, settings) -> Method` in `rivals/<module>.py`."""
