"""Names for facts of which one leads to the next, by kind, and what is said of them. Used by `linked.py`.

Names are real ones, of a published set, and invented ones; what is said of them is made up.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from pathlib import Path

from incomes_plugin.lab.data.examples import read_jsonl_xz
from incomes_plugin.lab.data.links import LINKS, Link
from incomes_plugin.lab.data.names import Names

_SOURCE = "pokemqa"
_INVENTED = 0.4
"""Share of the names that are invented, of the kinds that can be."""

_TRIES = 20
_UPPER = 0.5
"""Share of the statements that begin with an upper case letter, whatever their subject: "cricket was created in …"
stands so in published sets."""

_NAMED_BY = {
    "{s} is a citizen of {o}.": ("person", "country"), "The author of {s} is {o}.": ("work", "person"),
    "{s} was created by {o}.": ("work", "person"), "{s} was born in the city of {o}.": ("person", "city"),
    "{s} plays the position of {o}.": ("person", "position"), "{s} speaks the language of {o}.": ("person", "language"),
    "{s} is affiliated with the religion of {o}.": ("person", "religion"), "{s} is employed by {o}.": ("person", None),
    "The headquarters of {s} is located in the city of {o}.": ("company", "city"),
    "The chief executive officer of {s} is {o}.": ("company", "person"), "{s} is famous for {o}.": ("person", "work"),
    "The type of music that {s} plays is {o}.": ("person", "genre"),
    "The head coach of {s} is {o}.": ("team", "person"),
    "The univeristy where {s} was educated is {o}.": ("person", "university"),
    "{s} died in the city of {o}.": ("person", "city"),
    "{s} was written in the language of {o}.": ("work", "language"), "{s} was developed by {o}.": ("work", "company"),
    "{s} is associated with the sport of {o}.": ("team", "sport"), "{s} was performed by {o}.": ("work", "person"),
}  # fmt: skip
"""Statements of the published set by which the kinds of its names are known."""

_TEAM = re.compile(r"\b(?:F\.?C\.?|C\.?F\.?|Club|[Tt]eam|United|City|Athletic|[0-9]{4})(?:\b|$)")
"""A team's name, among other subjects that are said to have to do with a sport."""

_CLOSED = {
    "continent": ("Africa", "Antarctica", "Asia", "Europe", "North America", "Oceania", "South America"),
    "sport": ("American football", "Gaelic football", "association football", "badminton", "baseball", "basketball",
              "boxing", "cricket", "curling", "cycling", "field hockey", "golf", "handball", "ice hockey", "judo",
              "lacrosse", "netball", "polo", "roller derby", "rowing", "rugby union", "shinty", "softball", "squash",
              "sumo", "table tennis", "tennis", "volleyball", "water polo", "wrestling"),
}  # fmt: skip
_INVENTED_KINDS = {"person": "person", "company": "company", "city": "place", "country": "place", "work": "product"}


def published_names(data: Path | None) -> Path | None:
    """The file of the set whose names are used; None where it is not there."""
    path = None if data is None else data / "edits" / f"{_SOURCE}.train.jsonl.xz"
    return path if path is not None and path.is_file() else None


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


class FactsByName:
    """Names by kind, and the facts made so far: one relation of one subject is said once, always in the same words.

    Args:
        names: file of the published set.

    Attributes:
        links: relations of whose both ends there are names.
        left: of which subjects and relations nothing is to be said.
    """

    def __init__(self, names: Path, rng: random.Random) -> None:
        self._rng = rng
        self._invented = Names(rng, held_out=False)
        self._facts: dict[tuple[str, tuple[str, ...]], LinkedFact] = {}
        self.left: set[tuple[str, tuple[str, ...]]] = set()
        found: dict[str, set[str]] = {kind: set(own) for kind, own in _CLOSED.items()}
        for record in read_jsonl_xz(names):
            edit = record["edits"][0]
            subject, answer = edit["subject"], edit["target_new"]
            start = edit["statement"].replace(subject, "{s}", 1)
            form = "{o}".join(start.rsplit(answer, 1))
            for kind, name in zip(_NAMED_BY.get(form, ()), (subject, answer), strict=False):
                if kind is not None and len(name) <= 40 and (kind != "team" or _TEAM.search(name)):
                    found.setdefault(kind, set()).add(name)
        self._names = {kind: sorted(own) for kind, own in found.items()}
        self.links = [link for link in LINKS if {link.start, link.end} <= self._names.keys()]

    def name(self, kind: str) -> str:
        """A name of a kind."""
        if kind in _INVENTED_KINDS and self._rng.random() < _INVENTED:
            return self._invented.subject(_INVENTED_KINDS[kind])
        return self._rng.choice(self._names[kind])

    def fact(self, link: Link, subject: str, answer: str | None = None) -> LinkedFact:
        """What there is to say about a subject; with this answer if nothing was said yet."""
        known = self._facts.get(fact_key(link, subject))
        return known or self._new(link, subject, answer or self.name(link.end))

    def says_the_same(self, link: Link, answer: str) -> LinkedFact | None:
        """A fact about something else of which nothing is known yet; None where that is hard to find."""
        for subject in (self.name(link.start) for _ in range(_TRIES)):
            if fact_key(link, subject) not in self._facts and fact_key(link, subject) not in self.left:
                return self._new(link, subject, answer)
        return None

    def leave(self, link: Link, subject: str) -> bool:
        """Leave to the base what there is to say about a subject; False where something was said already."""
        if fact_key(link, subject) in self._facts:
            return False
        self.left.add(fact_key(link, subject))
        return True

    def _new(self, link: Link, subject: str, answer: str) -> LinkedFact:
        statement = self._rng.choice(link.statements).format(s=subject, o=answer)
        question = self._rng.choice(link.questions).format(s=subject)
        if self._rng.random() < _UPPER:
            statement = statement[:1].upper() + statement[1:]
        fact = LinkedFact(subject, answer, statement, question[:1].upper() + question[1:])
        self._facts[fact_key(link, subject)] = fact
        return fact


def fact_key(link: Link, subject: str) -> tuple[str, tuple[str, ...]]:
    """What a fact is about. Cities and countries have relations of the same words, and some names are both."""
    return subject, link.statements
