"""Facts about works, people, companies, sports and countries of which one leads to the next, up to four of them.

"What is the capital of the country of citizenship of the author of Ulysses?" rests on who the author is, which country
that person is a citizen of, and what its capital is. Each step has an aside that looks as if it followed: another fact
about what the step has reached, or one that says the same of something else. The last step may be left to what the base
knows.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from incomes_plugin.lab.data.hops import world
from incomes_plugin.lab.data.linked_names import FactsByName, LinkedFact, fact_key, published_names
from incomes_plugin.lab.data.links import LINKS, Link

_LENGTHS = (2, 2, 2, 3, 3, 4, 4)
_KNOWN_LENGTHS = (1, 1, 1, 2, 2, 3)
_TRIES = 20
_SAYS_THE_SAME = 0.6
"""Share of the asides that say the same of something else."""

_OF_WORLD = {"country": {"city": "capital", "continent": "continent", "language": "official language"},
             "city": {"continent": "continent"}}  # fmt: skip
"""What the base may know of a country or city, by what it is."""


@dataclass(frozen=True)
class LinkedFacts:
    """Facts that lead from one to the next, and a question.

    Attributes:
        facts: the question names the subject of the first; the last one answers it.
        asides: for each fact but the last, one that does not follow it.
        prompt: the question.
        attribute, known: what is asked of the last one's answer, and what the base knows it to be; empty where the last
            fact answers the question.
    """

    facts: tuple[LinkedFact, ...]
    asides: tuple[LinkedFact, ...]
    prompt: str
    attribute: str = ""
    known: str = ""

    @property
    def answer(self) -> str:
        """What is to be said. Of what the base knows, the name that it knows it of comes first: the base can look it up
        only after it has read that."""
        said = self.facts[-1].answer
        return f"{said}. The {self.attribute} of {said} is {self.known}" if self.known else said


def linked_facts(data: Path | None, count: int, *, seed: int, known: int = 0) -> list[LinkedFacts]:
    """`count` of them, fewer where names run out; none without the published set whose names they use.

    Args:
        known: so many more that end with what the base may know.
    """
    file = published_names(data)
    if file is None:
        return []
    rng = random.Random(seed)
    names = FactsByName(file, rng)
    found: list[LinkedFacts] = []
    for most, make, lengths in ((count, _linked, _LENGTHS), (known, _known, _KNOWN_LENGTHS)):
        made: list[LinkedFacts] = []
        for _ in range(_TRIES * most):  # a set with few names soon has no more
            linked = make(names, rng.choice(lengths), rng) if len(made) < most else None
            if linked is not None:
                made.append(linked)
        found += made
    return found


def _linked(world: FactsByName, length: int, rng: random.Random) -> LinkedFacts | None:
    """None where the facts lead back to where they came from, where nothing else says the same as one of them, or where
    relations are missing."""
    links = _way(world.links, length, rng)
    found = _facts(world, links, None, rng) if links else None
    if found is None:
        return None
    facts, asides = found
    prompt = rng.choice(links[-1].questions).format(s=_named(links[:-1], facts[0].subject, rng))
    return LinkedFacts(facts, asides, _upper(prompt))


def _known(names: FactsByName, length: int, rng: random.Random) -> LinkedFacts | None:
    """The same with one more step, over what the base may know of a country or a city; None as in `_linked`."""
    links = _way(names.links, length, rng)
    if not links or links[-1].end not in _OF_WORLD:
        return None
    kind = links[-1].end
    attributes = _OF_WORLD[kind]
    asked = rng.choice([link for link in LINKS if link.start == kind and link.end in attributes])
    attribute = attributes[asked.end]
    last = rng.choice(
        [x for x, known in world().items() if attribute in known and ("country" in known) == (kind == "city")]
    )
    found = _facts(names, links, last, rng)
    if found is None:
        return None
    facts, asides = found
    known = world().get(facts[-1].answer, {}).get(attribute)
    if known is None or not names.leave(asked, facts[-1].answer):
        return None
    prompt = rng.choice(asked.questions).format(s=_named(links, facts[0].subject, rng))
    return LinkedFacts(facts, asides, _upper(prompt), attribute, known)


def _facts(
    world: FactsByName, links: Sequence[Link], last: str | None, rng: random.Random
) -> tuple[tuple[LinkedFact, ...], tuple[LinkedFact, ...]] | None:
    """Facts of these relations and their asides, or None; see `_linked`.

    Args:
        last: the last one's answer, unless something was said of its subject already.
    """
    facts: list[LinkedFact] = []
    subject = world.name(links[0].start)
    for place, link in enumerate(links):
        if fact_key(link, subject) in world.left:
            return None
        facts.append(world.fact(link, subject, last if place == len(links) - 1 else None))
        subject = facts[-1].answer
    if len({facts[0].subject, *(fact.answer for fact in facts)}) <= len(links):
        return None
    asides = []
    for (link, following), (fact, after) in zip(pairwise(links), pairwise(facts), strict=True):
        others = [other for other in world.links if other.start == following.start and other is not following
                  and fact_key(other, fact.answer) not in world.left]  # fmt: skip
        aside = world.fact(rng.choice(others), fact.answer) if others and rng.random() >= _SAYS_THE_SAME else None
        if aside is None or aside.answer == after.answer:
            aside = world.says_the_same(link, fact.answer)
        if aside is None:
            return None
        asides.append(aside)
    return tuple(facts), tuple(asides)


def _named(links: Sequence[Link], subject: str, rng: random.Random) -> str:
    """What the last of these relations leads to, without its name."""
    named = f'"{subject}"' if links and links[0].start == "work" and rng.random() < 0.3 else subject
    for link in links:
        named = rng.choice(link.names).format(s=named)
    return named


def _upper(prompt: str) -> str:
    return prompt[:1].upper() + prompt[1:]


def _way(choice: Sequence[Link], length: int, rng: random.Random) -> list[Link]:
    """Relations of which each begins where the one before it ends; none where so many are not found."""
    for _ in range(_TRIES * length):
        links = [rng.choice(choice)]
        while len(links) < length and (more := [x for x in choice if x.start == links[-1].end and x not in links]):
            links.append(rng.choice(more))
        if len(links) == length:
            return links
    return []
