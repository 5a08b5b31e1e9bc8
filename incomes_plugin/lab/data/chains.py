"""Invented facts of which one leads to the next, and questions that need both.

"What is the home town of the founder of Xcor?" rests on who founded Xcor and on that person's home town. Each chain
has a third edit about the person who stands between, which does not answer the question.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from incomes_plugin.lab.data.facts import Fact, FactSource
from incomes_plugin.lab.data.relations import RELATIONS, Relation

_NOUN = re.compile(r"^What is the (.+) of \{s\}\?$")
_KINDS = {relation.kind for relation in RELATIONS}
_FIRST = tuple(r for r in RELATIONS if r.answer in _KINDS and _NOUN.match(r.questions[0]))


@dataclass(frozen=True)
class Chain:
    """Two facts and a question.

    Attributes:
        first: what the question names.
        second: what its answer leads to, and which answers the question.
        aside: of the same subject as the second, and no answer.
        prompt: the question.
    """

    first: Fact
    second: Fact
    aside: Fact
    prompt: str


def chains(count: int, *, seed: int, held_out: bool) -> list[Chain]:
    """`count` chains; see `facts.FactSource` for `held_out`."""
    rng, source = random.Random(seed), FactSource(seed, held_out=held_out)
    return [_chain(source, rng.choice(_FIRST), rng) for _ in range(count)]


def _chain(source: FactSource, relation: Relation, rng: random.Random) -> Chain:
    first = source.fact(relation=relation)
    second_relation = rng.choice([r for r in RELATIONS if r.kind == relation.answer and r.name != relation.name])
    second = source.fact(subject=first.answer, relation=second_relation)
    aside = source.fact(subject=first.answer, relation=source.other_relation(second_relation))
    noun = _NOUN.match(relation.questions[0])
    assert noun is not None  # `_FIRST` has no other
    wording = rng.choice((*second_relation.questions, *second_relation.clozes))
    prompt = wording.format(s=f"the {noun[1]} of {first.subject}")
    return Chain(first, second, aside, prompt[:1].upper() + prompt[1:])
