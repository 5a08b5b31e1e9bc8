"""Questions that an edit answers without saying so: asked the other way round, or one step further.

"Who is the son of Harmonius?" after "Gether's father is Harmonius."; "What is the capital of the country that X is
from?" after "X is from Yemen." An answer to the second kind names what the edit says first ("Yemen. The capital of
Yemen is Sana'a"): the base can look up what it knows of a name only after it has read it.
"""

from __future__ import annotations

import csv
import random
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from incomes_plugin.lab.data.examples import Example, Question
from incomes_plugin.lab.data.names import Names

_KIN = re.compile(
    r"\b(?:(father|mother)|(spouse|wife|husband|married)|(sister|brother|sibling)|(son|daughter|child))\b(?! tongue)",
    re.IGNORECASE,
)
_INVERSES = (
    ("Who is the son of {o}?", "Who is the child of {o}?", "Who is the son/daughter of {o}?", "Who is {o}'s child?",
     "The name of the child of {o} is", "Who is the daughter of {o}?"),
    ("Who is the spouse of {o}?", "Who is married to {o}?", "Who is {o} married to?", "{o} is married to",
     "The name of the spouse of {o} is", "Who was the husband or wife of {o}?"),
    ("Who is the sibling of {o}?", "Who is {o}'s brother?", "The names of the siblings of {o} are",
     "Who is the sister of {o}?", "Who is the brother or sister of {o}?"),
    ("Who is the father of {o}?", "Who is the mother of {o}?", "Who is a parent of {o}?", "Who is {o}'s parent?",
     "The name of a parent of {o} is"),
)  # fmt: skip
"""Ways to ask for the subject of a fact about kin, by the group of `_KIN` that its question matches."""

_SYMMETRIC = (1, 2)
"""Groups whose fact reads the same from both ends."""

_FACTS: tuple[tuple[str, str, str, int], ...] = (
    ("{s}'s father is {o}.", "Who is {s}'s father?", "The name of the father of {s} is", 0),
    ("The mother of {s} is {o}.", "Who is the mother of {s}?", "What is the name of {s}'s mother?", 0),
    ("{s} is married to {o}.", "Who is {s} married to?", "The spouse of {s} is", 1),
    ("{s}'s spouse's name is {o}.", "What is {s}'s spouse's name?", "Who is the spouse of {s}?", 1),
    ("{s}'s sister is {o}.", "Who is {s}'s sister?", "Who was the sister of {s}?", 2),
    ("The brother of {s} is {o}.", "Who is the brother of {s}?", "{s}'s brother is", 2),
    ("The child of {s} is {o}.", "Who is the child of {s}?", "The name of the child of {s} is", 3),
    ("{s} has a son, {o}.", "Who is the son of {s}?", "What is the name of {s}'s son?", 3),
)
"""Statement, two questions, group of inverses."""

_SAID = re.compile(
    r"^(?:what|who|which) (?:is|was) the (?:name of the )?(.+?)\?$|^the (?:name of the )?(.+?) (?:is|was)$", re.I
)
_FURTHER = ("What is the {a} of the {what}?", "The name of the {a} of the {what} is", "The {a} of the {what} is")


@dataclass(frozen=True)
class Hop:
    """A question one step further.

    Attributes:
        prompt: the question.
        answer: what the edit says, then what follows.
        known: the part of it that the base must know.
    """

    prompt: str
    answer: str
    known: str


def kin(count: int, *, seed: int) -> list[Example]:
    """Invented facts about relatives; `inverse` turns them round.

    Their neighbours ask for the same kind of relative of somebody else, and of the subject in the wrong direction.
    """
    rng = random.Random(seed)
    names = Names(rng, held_out=False)
    found = []
    for _ in range(count):
        subject, other = names.value("person"), names.value("person")
        statement, first, second, group = rng.choice(_FACTS)
        questions = tuple(Question(form.format(s=subject), other) for form in (first, second))
        wrong = [rng.choice(_INVERSES[group]).format(o=names.value("person"))]
        if group not in _SYMMETRIC:
            wrong.append(rng.choice(_INVERSES[group]).format(o=subject))
        found.append(Example(statement.format(s=subject, o=other), questions, tuple(wrong), "kin", subject))
    return found


def inverse(example: Example, rng: random.Random) -> Question | None:
    """The question that asks a fact about kin the other way round; None where the edit says no such fact."""
    first = example.questions[0]
    found = _KIN.search(first.prompt.replace(example.subject, " ")) if example.subject else None
    if found is None or "parent company" in first.prompt or not first.answer[:1].isupper():
        return None
    group = next(i for i, part in enumerate(found.groups()) if part)
    return Question(rng.choice(_INVERSES[group]).format(o=first.answer), example.subject)


def further(example: Example, rng: random.Random) -> Hop | None:
    """A question one step further; None where the table knows nothing of the edit's answer."""
    answer = example.questions[0].answer
    named = [what for q in example.questions if (found := _SAID.match(q.prompt)) for what in found.groups() if what]
    known = world().get(answer)
    if known is None or not named:
        return None
    attribute = rng.choice(sorted(known))
    prompt = rng.choice(_FURTHER).format(a=attribute, what=rng.choice(named))
    return Hop(prompt, f"{answer}. The {attribute} of {answer} is {known[attribute]}", known[attribute])


@cache
def world() -> dict[str, dict[str, str]]:
    """Attributes of well-known countries and cities, by name."""
    found: dict[str, dict[str, str]] = {}
    with (Path(__file__).parent / "world.csv").open(encoding="utf-8", newline="") as lines:
        for name, attribute, value in csv.reader(lines):
            found.setdefault(name, {})[attribute] = value
    return found
