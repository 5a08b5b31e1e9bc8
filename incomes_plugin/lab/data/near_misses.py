"""Questions close to an edit that it does not answer: another subject, or another relation of the same subject.

Published sets have few of the second kind, all in similar words, so both kinds are made here: a question of the edit
with another subject in it, a question about another edit with this subject in it, and attributes asked by name.
`by_name` asks for what an edit does say in the same words, so that the wording does not give away which questions are
near misses.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Sequence

from incomes_plugin.lab.data.examples import Example, Question

_ATTRIBUTES = (
    "occupation", "place of birth", "date of birth", "place of death", "date of death", "gender", "sex or gender",
    "spouse", "father", "mother", "sibling", "child", "employer", "country of citizenship", "native language",
    "religion", "field of work", "position held", "educated at", "award received", "member of", "manufacturer",
    "developer", "operating system", "designed by", "color", "material", "country", "country of origin", "capital",
    "currency", "continent", "head of government", "official language", "population", "located in", "location",
    "owner", "headquarters", "founder", "industry", "chief executive officer", "date founded", "genre", "author",
    "director", "producer", "cast member", "composer", "publisher", "record label", "original network",
    "publication date", "language of work", "narrative location", "follows", "followed by", "part of", "instance of",
    "named after", "league", "sport", "parent taxon", "taxon rank", "conservation status", "constellation",
    "chromosome", "service entry", "number of children", "height", "nickname", "anthem", "twin town", "phone number",
    "opening time", "price", "warranty", "weight",
)  # fmt: skip
_FORMS = ("The {a} of {s} is", "{s} {a}", "What is the {a} of {s}?", "{s}: what is its {a}?", "Tell me the {a} of {s}.")
_SAID = re.compile(
    r"^(?:what|who) (?:is|was) the ([a-z ]{3,40}) of (.+?)\??$|^the ([a-z ]{3,40}) of (.+) (?:is|was)$", re.IGNORECASE
)
_WORD = re.compile(r"[a-z]{4,}")
_COMMON = {"what", "which", "name", "that", "with", "from", "does", "have"}


class NearMisses:
    """Maker of near misses of one crowd of edits.

    Args:
        examples: the crowd; those without a subject have their own neighbours only.
    """

    def __init__(self, examples: Sequence[Example], rng: random.Random) -> None:
        self._rng = rng
        self._by_kind: dict[str, list[Example]] = defaultdict(list)
        for example in examples:
            if _movable(example):
                self._by_kind[example.kind].append(example)

    def of(self, example: Example, count: int) -> list[str]:
        """At most `count` near misses, of different kinds where there are some."""
        makers = [self._neighbour, self._other_subject, self._other_relation, self._attribute]
        self._rng.shuffle(makers)
        if example.neighbours:
            makers.insert(0, self._neighbour)
        found: list[str] = []
        for make in makers:
            prompt = make(example)
            if prompt and prompt not in found:
                found.append(prompt)
        return found[:count]

    def similar(self, example: Example) -> str | None:
        """A question of the edit about a subject that shares all but one word or digit with its own."""
        words = example.subject.split()
        if not _movable(example) or not words:
            return None
        place = self._rng.randrange(len(words))
        digits = [i for i, letter in enumerate(words[place]) if letter.isdigit()]
        if digits:
            at = self._rng.choice(digits)
            digit = self._rng.choice([d for d in "0123456789" if d != words[place][at]])
            words[place] = words[place][:at] + digit + words[place][at + 1 :]
        else:
            words[place] = self._rng.choice(self._rng.choice(self._by_kind[example.kind]).subject.split())
        subject = " ".join(words)
        return None if subject == example.subject else _moved(example, subject, self._rng)

    def _neighbour(self, example: Example) -> str | None:
        return self._rng.choice(example.neighbours) if example.neighbours else None

    def _other_subject(self, example: Example) -> str | None:
        others = self._by_kind[example.kind]
        if not _movable(example) or not others:
            return None
        subject = self._rng.choice(others).subject
        return None if subject == example.subject else _moved(example, subject, self._rng)

    def _other_relation(self, example: Example) -> str | None:
        others = self._by_kind[example.kind]
        if not example.subject or not others or example.kind == "invented":
            return None
        for _ in range(4):
            other = self._rng.choice(others)
            if other.subject != example.subject and not _words(other) & _words(example):
                return _moved(other, example.subject, self._rng)
        return None

    def _attribute(self, example: Example) -> str | None:
        if not example.subject:
            return None
        said = _words(example)
        names = [name for name in self._rng.sample(_ATTRIBUTES, 8) if not set(_WORD.findall(name)) & said]
        return None if not names else _asked(self._rng.choice(_FORMS), names[0], example.subject)


def by_name(example: Example, rng: random.Random) -> Question | None:
    """A question of the edit, with what is asked for by name alone; None where no question of it shows such a name."""
    for question in example.questions:
        found = _SAID.match(question.prompt)
        if found:
            name, subject = [group for group in found.groups() if group]
            return Question(_asked(rng.choice(_FORMS), name, subject), question.answer)
    return None


def _asked(form: str, name: str, subject: str) -> str:
    text = form.format(a=name, s=subject)
    return text[:1].upper() + text[1:] if form.startswith(("The", "What")) else text


def _movable(example: Example) -> bool:
    return bool(example.subject) and any(example.subject in question.prompt for question in example.questions)


def _moved(example: Example, subject: str, rng: random.Random) -> str:
    """A question of the edit, about another subject."""
    fit = [question.prompt for question in example.questions if example.subject in question.prompt]
    return rng.choice(fit).replace(example.subject, subject)


def _words(example: Example) -> set[str]:
    """Words of all that is said and asked of an edit, its subject left out."""
    said = " ".join((example.statement, *(question.prompt for question in example.questions)))
    return set(_WORD.findall(said.replace(example.subject, " ").lower())) - _COMMON
