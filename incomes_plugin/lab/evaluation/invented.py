"""Held-out invented facts as records: no invented word of theirs occurs in training, so only the edit can tell.

A longer data set of the same seed begins with the shorter one, so figures at several N ask the same questions.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import count

from incomes_plugin.lab.data.chains import chains
from incomes_plugin.lab.data.facts import Fact, FactSource
from incomes_plugin.lab.data.records import OVERWRITE_FLAG, EditRecord, QueryRecord, QueryType, Record


def invented(num_edits: int, seed: int, asked: int) -> list[Record]:
    """Records of one edit each. Near misses are slow to find, so only the first `asked` have them."""
    facts = FactSource(seed, held_out=True).distinct(num_edits)
    misses = _NearMisses(FactSource(seed + 1, held_out=True), {_key(fact) for fact in facts})
    return [
        Record(
            id=f"invented-{place}",
            edits=(_edit(fact),),
            queries=(
                *_wordings(fact, fact.answer, random.Random(f"{seed}-{place}")),
                *(misses.of(fact) if place < asked else ()),
            ),
        )
        for place, fact in enumerate(facts)
    ]


def invented_conflict(num_edits: int, seed: int, _asked: int) -> list[Record]:
    """Records of two edits each that contradict one another; the later wins."""
    later = FactSource(seed + 1, held_out=True)
    facts = FactSource(seed, held_out=True).distinct(max(1, num_edits // 2))
    return [_conflict(place, fact, later, random.Random(f"{seed}-{place}")) for place, fact in enumerate(facts)]


def invented_chain(num_edits: int, seed: int, _asked: int) -> list[Record]:
    """Records of two edits each of which the first leads to the second, and a question that needs both."""
    found = []
    for place, chain in enumerate(chains(max(1, num_edits // 2), seed=seed, held_out=True)):
        hop = QueryRecord(type="multihop", prompt=chain.prompt, answers=(chain.second.answer,), subtype="2_hop", edit=1)
        edits = (_edit(chain.first), _edit(chain.second))
        asked = (_wording(chain.first, 0), _wording(chain.second, 1), hop)
        found.append(Record(id=f"invented-chain-{place}", edits=edits, queries=asked))
    return found


def _wording(fact: Fact, edit: int) -> QueryRecord:
    return _query("rewrite", _canonical(fact), fact, fact.answer).model_copy(update={"edit": edit})


def _conflict(place: int, fact: Fact, later: FactSource, rng: random.Random) -> Record:
    others = (later.fact(subject=fact.subject, relation=fact.relation) for _ in count())
    second = next(other for other in others if other.answer != fact.answer)
    queries = tuple(
        query.model_copy(update={"old_answers": (fact.answer,), "edit": 1})
        for query in _wordings(fact, second.answer, rng)
    )
    edits = (_edit(fact), _edit(second))
    return Record(id=f"invented-conflict-{place}", edits=edits, queries=queries, flags=(OVERWRITE_FLAG,))


def _wordings(fact: Fact, answer: str, rng: random.Random) -> Iterator[QueryRecord]:
    """The canonical question, another question, and a cloze."""
    yield _query("rewrite", _canonical(fact), fact, answer)
    yield _query("rephrase", _say(rng.choice(fact.relation.questions[1:]), fact), fact, answer)
    yield _query("rephrase", _say(rng.choice(fact.relation.clozes), fact), fact, answer)


def _query(kind: QueryType, prompt: str, fact: Fact, answer: str) -> QueryRecord:
    return QueryRecord(type=kind, prompt=prompt, answers=(answer,), subtype=fact.relation.answer)


class _NearMisses:
    """Questions that no edit answers: a similar subject with the same relation, the same subject with another one."""

    def __init__(self, source: FactSource, known: set[tuple[str, str]]) -> None:
        self._source = source
        self._known = known

    def of(self, fact: Fact) -> Iterator[QueryRecord]:
        """One of each kind."""
        source, relation = self._source, fact.relation
        similar = (source.fact(subject=source.similar_subject(fact), relation=relation) for _ in count())
        other = (source.fact(subject=fact.subject, relation=source.other_relation(relation)) for _ in count())
        yield self._first("similar_subject", similar)
        yield self._first("other_relation", other)

    def _first(self, subtype: str, facts: Iterator[Fact]) -> QueryRecord:
        miss = next(fact for fact in facts if _key(fact) not in self._known)
        return QueryRecord(type="near_miss", prompt=_canonical(miss), answers=(), subtype=subtype)


def _edit(fact: Fact) -> EditRecord:
    return EditRecord(
        statement=fact.statement, subject=fact.subject, relation=fact.relation.name, target_new=fact.answer
    )


def _canonical(fact: Fact) -> str:
    return _say(fact.relation.questions[0], fact)


def _say(wording: str, fact: Fact) -> str:
    text = wording.format(s=fact.subject)
    return text[:1].upper() + text[1:]


def _key(fact: Fact) -> tuple[str, str]:
    return fact.subject, fact.relation.name
