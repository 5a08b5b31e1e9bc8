"""Invented facts: subject, relation, object, and the sentences around them; endless, and held out in evaluation."""

from __future__ import annotations

import random
from dataclasses import dataclass

from incomes_plugin.lab.data.names import Names, is_held_out_name
from incomes_plugin.lab.data.relations import RELATIONS, Relation

_BY_KIND: dict[str, tuple[Relation, ...]] = {
    kind: tuple(r for r in RELATIONS if r.kind == kind) for kind in dict.fromkeys(r.kind for r in RELATIONS)
}


@dataclass(frozen=True)
class Fact:
    """One invented fact and how it is said this time.

    Attributes:
        statement: the edit text.
        question: a question whose answer is `answer` (canonical or paraphrased).
        cloze: a beginning that `answer` continues.
    """

    subject: str
    relation: Relation
    answer: str
    statement: str
    question: str
    cloze: str


def _upper_first(text: str) -> str:
    return text[:1].upper() + text[1:]


class FactSource:
    """An endless, seeded stream of invented facts.

    Args:
        seed: same seed, same facts.
        held_out: names from the evaluation part (no invented word of it occurs in training).
    """

    def __init__(self, seed: int, *, held_out: bool) -> None:
        self._rng = random.Random(seed)
        self._held_out = held_out
        self._names = Names(self._rng, held_out=held_out)

    def fact(self, *, subject: str | None = None, relation: Relation | None = None) -> Fact:
        """A new fact; fix `subject` (of the relation's kind) or `relation` to make near misses."""
        relation = relation or self._rng.choice(_BY_KIND[self._rng.choice(tuple(_BY_KIND))])
        subject = subject or self._names.subject(relation.kind)
        answer = self._names.value(relation.answer)
        while answer == subject:
            answer = self._names.value(relation.answer)
        pick = self._rng.choice
        statement, question, cloze = pick(relation.statements), pick(relation.questions), pick(relation.clozes)
        return Fact(
            subject=subject,
            relation=relation,
            answer=answer,
            statement=_upper_first(statement.format(s=subject, o=answer)),
            question=_upper_first(question.format(s=subject)),
            cloze=_upper_first(cloze.format(s=subject)),
        )

    def similar_subject(self, fact: Fact) -> str:
        """Another subject of the same kind that shares all but one word with `fact`'s, where it has several words."""
        words = fact.subject.split()
        while True:
            other = self._names.subject(fact.relation.kind)
            mutated = self._other_digit(words)
            if mutated is not None and self._allows(fact.relation.kind, mutated):
                return mutated
            if len(words) == 1:
                return other
            if len(other.split()) == len(words):
                place = self._rng.choice([i for i, w in enumerate(words) if w != "the"])
                mixed = " ".join([*words[:place], other.split()[place], *words[place + 1 :]])
                if mixed != fact.subject and self._allows(fact.relation.kind, mixed):
                    return mixed

    def _other_digit(self, words: list[str]) -> str | None:
        """Half of the time, the name with one digit of its code changed; None where it has none."""
        digits = [(w, i) for w, word in enumerate(words) for i, char in enumerate(word) if char.isdigit()]
        if not digits or self._rng.random() < 0.5:
            return None
        word, index = self._rng.choice(digits)
        old = words[word]
        digit = self._rng.choice([d for d in "123456789" if d != old[index]])
        return " ".join([*words[:word], old[:index] + digit + old[index + 1 :], *words[word + 1 :]])

    def _allows(self, kind: str, subject: str) -> bool:
        """Names of products are held out whole, all others word by word."""
        return kind != "product" or is_held_out_name(subject) == self._held_out

    def other_relation(self, relation: Relation) -> Relation:
        """Another relation of the same kind of subject."""
        return self._rng.choice([r for r in _BY_KIND[relation.kind] if r is not relation])

    def distinct(self, count: int) -> list[Fact]:
        """`count` facts with distinct (subject, relation)."""
        facts: dict[tuple[str, str], Fact] = {}
        while len(facts) < count:
            fact = self.fact()
            facts.setdefault((fact.subject, fact.relation.name), fact)
        return list(facts.values())
