"""Facts about works, people, companies, sports and countries of which one leads to the next, up to four of them.

"What is the capital of the country of citizenship of the author of Ulysses?" rests on who the author is, which country
that person is a citizen of, and what its capital is. Names are real ones and invented ones; what is said of them is
made up. Each step has an aside that looks as if it followed: another fact about what the step has reached, or one that
says the same of something else.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from incomes_plugin.lab.data.examples import read_jsonl_xz
from incomes_plugin.lab.data.links import LINKS, Link
from incomes_plugin.lab.data.names import Names

_SOURCE = "pokemqa"
_LENGTHS = (2, 2, 2, 3, 3, 4)
_SAYS_THE_SAME = 0.6
"""Share of the asides that say the same of something else."""

_INVENTED = 0.4
"""Share of the names that are invented, of the kinds that can be."""

_TRIES = 20
_UPPER = 0.5
"""Share of the statements that begin with an upper case letter, whatever their subject: "cricket was created in …"
stands so in published sets."""


@dataclass(frozen=True)
class LinkedFact:
    """One fact.

    Attributes:
        subject, answer: its ends.
        statement: the edit text.
        question: whose answer is `answer`.
    """

    subject: str
    answer: str
    statement: str
    question: str


@dataclass(frozen=True)
class LinkedFacts:
    """Facts that lead from one to the next, and a question.

    Attributes:
        facts: the question names the subject of the first; the last one answers it.
        asides: for each fact but the last, one that does not follow it.
        prompt: the question.
    """

    facts: tuple[LinkedFact, ...]
    asides: tuple[LinkedFact, ...]
    prompt: str


_NAMED_BY = {
    "{s} is a citizen of {o}.": ("person", "country"), "The author of {s} is {o}.": ("work", "person"),
    "{s} was created by {o}.": ("work", "person"), "{s} was born in the city of {o}.": ("person", "city"),
    "{s} plays the position of {o}.": ("person", "position"), "{s} speaks the language of {o}.": ("person", "language"),
    "{s} is affiliated with the religion of {o}.": ("person", "religion"), "{s} is employed by {o}.": ("person", None),
    "The headquarters of {s} is located in the city of {o}.": ("company", "city"),
    "The chief executive officer of {s} is {o}.": ("company", "person"),
}  # fmt: skip
"""Statements of the published set by which the kinds of its names are known."""

_CLOSED = {
    "continent": ("Africa", "Antarctica", "Asia", "Europe", "North America", "Oceania", "South America"),
    "sport": ("American football", "Gaelic football", "association football", "badminton", "baseball", "basketball",
              "boxing", "cricket", "curling", "cycling", "field hockey", "golf", "handball", "ice hockey", "judo",
              "lacrosse", "netball", "polo", "roller derby", "rowing", "rugby union", "shinty", "softball", "squash",
              "sumo", "table tennis", "tennis", "volleyball", "water polo", "wrestling"),
}  # fmt: skip
_INVENTED_KINDS = {"person": "person", "company": "company", "city": "place", "country": "place", "work": "product"}


class _World:
    """Names by kind, and the facts made so far: one relation of one subject is said once, always in the same words.

    Args:
        data: folder with the published set.
    """

    def __init__(self, data: Path, rng: random.Random) -> None:
        self._rng = rng
        self._invented = Names(rng, held_out=False)
        self._facts: dict[tuple[str, Link], LinkedFact] = {}
        found: dict[str, set[str]] = {kind: set(names) for kind, names in _CLOSED.items()}
        for record in read_jsonl_xz(data / "edits" / f"{_SOURCE}.train.jsonl.xz"):
            edit = record["edits"][0]
            subject, answer = edit["subject"], edit["target_new"]
            start = edit["statement"].replace(subject, "{s}", 1)
            form = "{o}".join(start.rsplit(answer, 1))
            for kind, name in zip(_NAMED_BY.get(form, ()), (subject, answer), strict=False):
                if kind is not None and len(name) <= 40:
                    found.setdefault(kind, set()).add(name)
        self._names = {kind: sorted(names) for kind, names in found.items()}
        self.links = [link for link in LINKS if {link.start, link.end} <= self._names.keys()]

    def name(self, kind: str) -> str:
        """A name of a kind."""
        if kind in _INVENTED_KINDS and self._rng.random() < _INVENTED:
            return self._invented.subject(_INVENTED_KINDS[kind])
        return self._rng.choice(self._names[kind])

    def fact(self, link: Link, subject: str) -> LinkedFact:
        """What there is to say about a subject."""
        return self._facts.get((subject, link)) or self._new(link, subject, self.name(link.end))

    def says_the_same(self, link: Link, answer: str) -> LinkedFact | None:
        """A fact about something else of which nothing is known yet; None where that is hard to find."""
        for subject in (self.name(link.start) for _ in range(_TRIES)):
            if (subject, link) not in self._facts:
                return self._new(link, subject, answer)
        return None

    def _new(self, link: Link, subject: str, answer: str) -> LinkedFact:
        statement = self._rng.choice(link.statements).format(s=subject, o=answer)
        question = self._rng.choice(link.questions).format(s=subject)
        if self._rng.random() < _UPPER:
            statement = statement[:1].upper() + statement[1:]
        fact = LinkedFact(subject, answer, statement, question[:1].upper() + question[1:])
        self._facts[subject, link] = fact
        return fact


def linked_facts(data: Path | None, count: int, *, seed: int) -> list[LinkedFacts]:
    """`count` of them, fewer where names run out; none without the published set whose names they use."""
    if data is None or not (data / "edits" / f"{_SOURCE}.train.jsonl.xz").is_file():
        return []
    rng = random.Random(seed)
    world = _World(data, rng)
    found: list[LinkedFacts] = []
    for _ in range(_TRIES * count):  # a set with few names soon has no more
        linked = _linked(world, rng.choice(_LENGTHS), rng) if len(found) < count else None
        if linked is not None:
            found.append(linked)
    return found


def _linked(world: _World, length: int, rng: random.Random) -> LinkedFacts | None:
    """None where the facts lead back to where they came from, where nothing else says the same as one of them, or where
    relations are missing."""
    links = _way(world.links, length, rng)
    if not links:
        return None
    facts = [world.fact(links[0], world.name(links[0].start))]
    for link in links[1:]:
        facts.append(world.fact(link, facts[-1].answer))
    if len({facts[0].subject, *(fact.answer for fact in facts)}) <= length:
        return None
    asides = []
    for (link, following), (fact, after) in zip(pairwise(links), pairwise(facts), strict=True):
        others = [other for other in world.links if other.start == following.start and other is not following]
        aside = world.fact(rng.choice(others), fact.answer) if others and rng.random() >= _SAYS_THE_SAME else None
        if aside is None or aside.answer == after.answer:
            aside = world.says_the_same(link, fact.answer)
        if aside is None:
            return None
        asides.append(aside)
    named = f'"{facts[0].subject}"' if links[0].start == "work" and rng.random() < 0.3 else facts[0].subject
    for link in links[:-1]:
        named = rng.choice(link.names).format(s=named)
    prompt = rng.choice(links[-1].questions).format(s=named)
    return LinkedFacts(tuple(facts), tuple(asides), prompt)


def _way(choice: Sequence[Link], length: int, rng: random.Random) -> list[Link]:
    """Relations of which each begins where the one before it ends; none where so many are not found."""
    for _ in range(_TRIES * length):
        links = [rng.choice(choice)]
        while len(links) < length and (more := [x for x in choice if x.start == links[-1].end and x not in links]):
            links.append(rng.choice(more))
        if len(links) == length:
            return links
    return []
