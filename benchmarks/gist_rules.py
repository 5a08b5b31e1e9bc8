"""Which gists of an edit to keep, gist for token: rules that `gists.py` compares at equal budgets.

in: what one edit text says about its tokens (`EditText`); out: places of the tokens whose gists stay. Pure Python.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

ASKED = 1000.0
"""More than any surprisal: what the rule `answer` gives what is asked for."""


@dataclass(frozen=True)
class EditText:
    """Tokens of an edit text.

    Attributes:
        nats: surprisal -log p of each token given all before it, under the edit-capable model.
        read: how likely a question reads each token's gist, by the fitted rule: 0 is its threshold.
        answer: places of the tokens a question asks for; no product knows them, one rule here does.
        seed: for the rule that draws.
    """

    nats: tuple[float, ...]
    read: tuple[float, ...]
    answer: range
    seed: int = 0


def read(text: EditText) -> list[float]:
    """The gists a question would read, by their own keys (`incomes_plugin/selection/keeping.py`)."""
    return list(text.read)


def surprisal(text: EditText) -> list[float]:
    """The tokens the model could not have guessed."""
    return list(text.nats)


def surprisal_after(text: EditText) -> list[float]:
    """The same, and each one's successor: the token that ends an answer reads the entry after the answer."""
    return [max(pair) for pair in zip(text.nats, (0.0, *text.nats), strict=False)]


def answer(text: EditText) -> list[float]:
    """What is asked for and the token after it, then the rest by surprisal: knows the question, so a bound."""
    asked = range(text.answer.start, text.answer.stop + 1)
    return [ASKED + len(text.nats) - place if place in asked else nats for place, nats in enumerate(text.nats)]


def drawn(text: EditText) -> list[float]:
    """By chance."""
    draw = random.Random(text.seed)
    return [draw.random() for _ in text.nats]


def first(text: EditText) -> list[float]:
    """From the beginning."""
    return [-float(place) for place in range(len(text.nats))]


def last(text: EditText) -> list[float]:
    """From the end: what `max_gists` smaller than the text keeps."""
    return [float(place) for place in range(len(text.nats))]


Rule = Callable[[EditText], list[float]]
RULES: dict[str, Rule] = {
    "read": read,
    "surprisal": surprisal,
    "surprisal-after": surprisal_after,
    "answer": answer,
    "random": drawn,
    "first": first,
    "last": last,
}
"""Scores of the tokens by name of the rule; the gists of the highest stay."""


@dataclass(frozen=True)
class Keep:
    """A rule with its budget: the `most` best gists of an edit, or those that score `least` or more; else all."""

    rule: str = "all"
    most: int | None = None
    least: float | None = None

    @property
    def name(self) -> str:
        """As in the report."""
        if self.rule == "all":
            return "all"
        return f"{self.rule}, {self.most}" if self.least is None else f"{self.rule} >= {self.least:g}"

    def places(self, text: EditText) -> list[int]:
        """Places of the tokens whose gists stay, ascending; at least one."""
        if self.rule == "all":
            return list(range(len(text.nats)))
        scores = RULES[self.rule](text)
        ranked = sorted(range(len(scores)), key=lambda place: (-scores[place], -text.nats[place], place))
        if self.least is None:
            return sorted(ranked[: self.most])
        return sorted(place for place in ranked if place == ranked[0] or scores[place] >= self.least)
