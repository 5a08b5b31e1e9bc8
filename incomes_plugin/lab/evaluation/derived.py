"""Questions made of the questions of a selection: after other turns, after a long text, two edits asked at once."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from incomes_plugin.lab.evaluation.interface import EvalQuestion, Turn

LONG_TOKENS = (500, 2000, 6000)
"""Tokens of text in front of a question."""

LONG_ASKED = 20
"""Questions asked after a text of each length."""

LONG_TEXTS = 4
"""Different texts of each length."""

ROOM_FOR_QUESTION = 200
"""Tokens that are kept free for the question and the template around it."""

MOST_DERIVED = 50
"""Questions asked after other turns, and pairs asked at once."""


def rewrites(questions: Sequence[EvalQuestion]) -> list[EvalQuestion]:
    """The first rewrite about each edit."""
    found: dict[int, EvalQuestion] = {}
    for question in questions:
        if question.type == "rewrite" and question.edit is not None:
            found.setdefault(question.edit, question)
    return list(found.values())


def multi_turn(asked: Sequence[EvalQuestion], seed: int) -> list[EvalQuestion]:
    """Each question after a turn about another edit, answered rightly, and thanks."""
    rng = random.Random(seed)
    found = []
    for place, question in enumerate(asked[:MOST_DERIVED]):
        others = [
            other for other in (*asked[:place], *asked[place + 1 :]) if not set(other.answers) & set(question.answers)
        ]
        about = rng.choice(others) if others else None
        before = (Turn("user", about.prompt), Turn("assistant", about.answers[0])) if about else ()
        thanks = (Turn("user", "Thank you"), Turn("assistant", "You are welcome."))
        found.append(replace(question, id=f"{question.id}/turns", type="multi_turn", history=(*before, *thanks)))
    return found


def two_edits(asked: Sequence[EvalQuestion]) -> list[EvalQuestion]:
    """Neighbouring questions in one: "What is …, and who …?"."""
    whole = [question for question in asked if question.prompt.endswith("?") and not question.overwritten]
    return [
        replace(
            first,
            id=f"{first.id}+{second.id}",
            type="two_edits",
            prompt=f"{first.prompt[:-1]}, and {second.prompt[:1].lower()}{second.prompt[1:]}",
            also=second.answers,
            needs=(*first.needs, *second.needs),
        )
        for first, second in zip(whole[: 2 * MOST_DERIVED : 2], whole[1 : 2 * MOST_DERIVED : 2], strict=False)
    ]


def long_prompts(
    asked: Sequence[EvalQuestion], paragraphs: Sequence[str], count: Callable[[str], int], most_tokens: int, seed: int
) -> list[EvalQuestion]:
    """The first questions after texts of `LONG_TOKENS` tokens each, as far as the context holds them.

    Args:
        paragraphs: running text that has nothing to do with any edit.
        count: tokens of a text.
        most_tokens: longest text that fits.
    """
    found = []
    for length in LONG_TOKENS:
        if length > most_tokens:
            continue
        texts = [_text(paragraphs, length, count, random.Random(f"{seed}-{turn}")) for turn in range(LONG_TEXTS)]
        found += [
            replace(
                question,
                id=f"{question.id}/{length}",
                type="long_prompt",
                subtype=str(length),
                prompt=f"{texts[place % LONG_TEXTS]}\n\n{question.prompt}",
            )
            for place, question in enumerate(asked[:LONG_ASKED])
        ]
    return found


def _text(paragraphs: Sequence[str], length: int, count: Callable[[str], int], rng: random.Random) -> str:
    """Paragraphs in random order, again and again if there are few, up to `length` tokens."""
    chosen: list[str] = []
    tokens = 0
    while tokens < length:
        for paragraph in rng.sample(paragraphs, len(paragraphs)):
            tokens += count(paragraph)
            if tokens > length:
                break
            chosen.append(paragraph)
    return "\n".join(chosen)
