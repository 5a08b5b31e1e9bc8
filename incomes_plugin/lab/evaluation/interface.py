"""The contract of the harness: edits and questions go in, answers come out, whatever the method and the backend.

A *generator* (`backends/`) runs the model; a *method* (`methods.py`, `rivals/`) decides how the model gets to know the
edits. `harness.py` calls `prepare` once with all edits and `ask` with all questions, and `metrics.py` judges.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class EvalEdit:
    """One active edit.

    Attributes:
        index: its place in time: of two that contradict each other, the larger index wins.
        text: what is compressed, retrieved or put into the prompt.
        prompt, target: how a rewrite asks for it and what it should say; only methods that train on prompts use them.
    """

    index: int
    text: str
    prompt: str | None = None
    target: str | None = None


@dataclass(frozen=True)
class Turn:
    """One message of a chat; `role` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True)
class EvalQuestion:
    """One thing to ask.

    Attributes:
        type: rewrite, rephrase, portability, multihop, two_edits, multi_turn, long_prompt: an edit answers it;
            locality, near_miss, unrelated, known: none does.
        prompt: the user message; a cloze is sent as one too.
        answers: what counts as right (aliases).
        also: what has to be said beside it (aliases); empty where one answer is all.
        edit: index of the edit it is about; None = no active edit answers it.
        cloze: the prompt is a sentence to complete.
        old_answers: answers that were right before the edit.
        needs: indices of all edits the answer needs, in the order of the facts (`edit` is one of them).
        history: earlier turns of the conversation.
        overwritten: another active edit said something else about the same before.
    """

    id: str
    type: str
    subtype: str | None
    prompt: str
    answers: tuple[str, ...]
    edit: int | None
    cloze: bool
    also: tuple[str, ...] = ()
    old_answers: tuple[str, ...] = ()
    needs: tuple[int, ...] = ()
    history: tuple[Turn, ...] = ()
    overwritten: bool = False


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        text: stripped.
        tokens: generated ids, without the stop token.
        applied: indices of the edits that were read or stood in the prompt, the heaviest first.
        prompt_tokens: length of the whole prompt, edits in it included.
    """

    text: str
    tokens: tuple[int, ...]
    applied: tuple[int, ...]
    prompt_tokens: int


@dataclass(frozen=True)
class EvalSettings:
    """What a method may want to know.

    Attributes:
        seed: of everything random.
        max_answer_tokens: greedy decoding ends here if the model does not end it before.
    """

    seed: int = 0
    max_answer_tokens: int = 64


@dataclass(frozen=True)
class PoolHandle:
    """Edits captured as one pool; backends subclass it with what they need to find it again.

    Attributes:
        num_edits: edits in the pool.
        refused: indices of edits that could not be captured (too long for the model).
        num_bytes: size of the stored keys and values.
    """

    num_edits: int
    refused: tuple[int, ...]
    num_bytes: int


Done = Callable[[int], None]


def nothing(_answered: int) -> None:
    """Ignores the progress."""


class Generator(Protocol):
    """A base with its adapter on a backend. Decoding is greedy and stops where the model stops."""

    tokenizer: Any
    base_dir: Path
    fingerprint: str
    """Of base, adapter and compute dtype; of the base alone where there is no adapter."""
    max_context_tokens: int
    """Prompt and answer together."""

    def add(self, edits: Sequence[EvalEdit]) -> PoolHandle:
        """Capture edits and make them one pool."""
        ...

    def generate(
        self, prompts: Sequence[Sequence[int]], pool: PoolHandle | None, max_tokens: int, done: Done = nothing
    ) -> list[Answer]:
        """One answer per prompt, in order; `pool` None = the base without edits.

        Args:
            done: called with how many answers are there.
        """
        ...

    def release(self, pool: PoolHandle) -> None:
        """Give back what a pool holds."""
        ...

    def chat_ids(self, messages: Sequence[Turn]) -> list[int]:
        """Token ids of a chat that the assistant should continue, by the base's chat template."""
        ...

    def sibling(self, base_dir: Path) -> Generator:
        """Another checkpoint of the same shape on the same backend, without an adapter. The caller closes it."""
        ...

    def close(self) -> None:
        """Stop the engine, if there is one."""
        ...


class Method(Protocol):
    """A way to make a model know edits."""

    name: str

    def prepare(self, edits: Sequence[EvalEdit]) -> None:
        """Take in all edits, oldest first. Called once."""
        ...

    def ask(self, questions: Sequence[EvalQuestion], done: Done = nothing) -> list[Answer]:
        """One answer per question, in order. May be called several times."""
        ...

    def close(self) -> None:
        """Give back what `prepare` took."""
        ...


MethodFactory = Callable[[Generator, EvalSettings], Method]


def messages(question: EvalQuestion, context: Sequence[EvalEdit] = ()) -> list[Turn]:
    """The chat that asks `question`, with `context` in front of it in the same message where there is some.

    Of four forms this is the one by which the default base reads best: 80 to 90 % of 40 rewrites with the right edit,
    against 33 to 68 % where the edit stands in the system message (docs/experiments.md).
    """
    asked = question.prompt
    if context:
        known = "\n".join(edit.text for edit in context)
        asked = f"Context: {known}\n\nQuestion: {asked}\nAnswer briefly from the context."
    return [*question.history, Turn("user", asked)]
