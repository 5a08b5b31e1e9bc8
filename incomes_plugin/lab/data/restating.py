"""Other forms of edits: a question with its answer instead of a sentence, questions with asides, answers of two parts,
sentences that begin with the answer, and all but the answer in lower case.

People write "When was the depot opened? 12 May 1987, Lyon." as well as sentences. Whoever copies from such an edit must
not take a number or a name of the question for the answer, and must begin an answer of two parts with the first. In
"Ann Zed built the depot in lyon." the answer comes before what is asked by.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import replace

from incomes_plugin.lab.data.examples import Example, Question

_ASKED = 0.7
"""Share of the edits with a question that become it with its answer; all others get an answer of two parts."""

_TWO_PARTS = 0.3
"""Share of those that become a question whose answer has two parts as well."""

_FORMS = ("{question} {answer}.", "{question} {answer}.", "{question} {answer}", "Q: {question} A: {answer}")
_ASIDES = (
    "in {year}", "as {other} said on {day} {month} {year}", "which came {number} years after {other}",
    "of which {other} has {number}", "the one near {other} with about {number}.{digit} of them", "unlike {other}",
    "not {other} or {another}", "that {other} called '{another}' in {year}",
)  # fmt: skip
_PARTS = (
    "{answer} & {other}", "{answer}, {other}", "{answer} ({other})", "{answer} and {other}",
    "{day} {month} {year}, {answer}", "{answer} ; {month} {day} , {year}", "{answer} / {other}",
)  # fmt: skip
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
_SAID_FIRST = 0.4
"""Share of the edits that begin with the answer, of those whose question can be turned so."""

_LOWER = 0.3
"""Share of these, and of the questions, in lower case."""

_TURNED = re.compile(
    r"^(?:Who|What|Which|(?:What|Which) \w+)"
    r" ((?:\w+ed|is the|was the|wrote|made|gave|led|built|found|sang|won|owns|plays) .+)\?$"
)
_LONGEST = 40
"""Longest answer in characters that gets a second part or stands in an aside."""


def restated(examples: Sequence[Example], rng: random.Random) -> list[Example]:
    """These edits in other forms; without those that have none."""
    answers = [one.questions[0].answer for one in examples if one.questions]
    short = [answer for answer in answers if len(answer) <= _LONGEST]
    return [other for one in examples if short and (other := _restated(one, short, rng)) != one]


def _restated(example: Example, answers: Sequence[str], rng: random.Random) -> Example:
    if not example.questions or len({question.answer for question in example.questions}) != 1:
        return example
    first = example.questions[0]
    if rng.random() < _SAID_FIRST and (turned := _TURNED.match(first.prompt)):
        return _answer_first(example, turned[1], rng)
    asked = first.prompt.endswith("?") and rng.random() < _ASKED
    if (not asked or rng.random() < _TWO_PARTS) and len(first.answer) <= _LONGEST:
        example = _with_answer(example, rng.choice(_PARTS).format(answer=first.answer, **_details(answers, rng)))
    return _as_question(example, answers, rng) if asked else example


def _with_answer(example: Example, answer: str) -> Example:
    """With another answer; unchanged if the statement does not name the one it has exactly once."""
    before = example.questions[0].answer
    if example.statement.count(before) != 1:
        return example
    questions = tuple(Question(question.prompt, answer) for question in example.questions)
    return replace(example, statement=example.statement.replace(before, answer), questions=questions, hops=())


def _answer_first(example: Example, rest: str, rng: random.Random) -> Example:
    first, *others = example.questions
    rest, prompt = (_maybe_lower(text, rng.random() < _LOWER) for text in (rest, first.prompt))
    statement = f"{first.answer[:1].upper()}{first.answer[1:]} {rest}."
    return replace(example, statement=statement, questions=(Question(prompt, first.answer), *others), hops=())


def _maybe_lower(text: str, lower: bool) -> str:
    return text.lower() if lower else text


def _as_question(example: Example, answers: Sequence[str], rng: random.Random) -> Example:
    first, *others = example.questions
    prompt = first.prompt
    if rng.random() < 0.5:
        aside = rng.choice(_ASIDES).format(**_details(answers, rng))
        lower = f"{prompt[:1].lower()}{prompt[1:]}"
        prompt = f"{prompt[:-1]}, {aside}?" if rng.random() < 0.6 else f"{aside[:1].upper()}{aside[1:]}, {lower}"
    prompt = _maybe_lower(prompt, rng.random() < _LOWER)
    statement = rng.choice(_FORMS).format(question=prompt, answer=first.answer)
    return replace(example, statement=statement, questions=(Question(prompt, first.answer), *others))


def _details(answers: Sequence[str], rng: random.Random) -> dict[str, object]:
    return {
        "other": rng.choice(answers), "another": rng.choice(answers), "year": rng.randint(1800, 2030),
        "month": rng.choice(_MONTHS), "day": rng.randint(1, 28), "number": rng.randint(2, 99),
        "digit": rng.randint(1, 9),
    }  # fmt: skip
