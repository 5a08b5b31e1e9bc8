"""Edits in conflict, for `judging.py` and `benchmarks/conflicts.py`: contradictions, duplicates, mere neighbours.

in: the published sets of one split, as far as there are any, and invented facts; out: groups around one edit each
"""

from __future__ import annotations

import logging
import random
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from incomes_plugin.lab.data.facts import Fact, FactSource
from incomes_plugin.lab.data.records import EditRecord, Record, read_records

logger = logging.getLogger("incomes.lab")

SEED = 4242
SUFFIX = ".jsonl.xz"
SETS = {
    "train": {"counterfact": 1.0, "zsre_synth": 1.5, "pararel_synth": 1.5, "wiki_cf": 0.75, "zsre": 0.5},
    "dev": {"counterfact": 1.0, "conflict": 1.0, "zsre": 0.5, "wiki_cf": 0.4, "peak": 0.3},
}
"""Published sets, and how many of their records are taken for each one of `count`."""
INVENTED = {"train": 3.0, "dev": 1.0}
MULTI_VALUED = frozenset({"peak"})
"""Here a second object stays true beside the first, so only paraphrases are taken."""
MERE = frozenset({"neighbour", "same_relation", "relation_specificity", "other_relation"})
"""Kinds of `locality` prompts that ask about something else."""
_SMALL = frozenset(
    ["a", "an", "and", "at", "by", "for", "from", "has", "in", "is", "it", "of", "on", "the", "to", "was", "were"]
)


@dataclass(frozen=True)
class ConflictGroup:
    """An edit and others around it.

    Attributes:
        source: data set.
        contradictions: the same subject and relation, another object; `reworded` ones also in other words.
        duplicates: the same in other words.
        neighbours: another subject or another relation.
    """

    source: str
    edit: str
    contradictions: tuple[str, ...] = ()
    reworded: tuple[str, ...] = ()
    duplicates: tuple[str, ...] = ()
    neighbours: tuple[str, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """All of them."""
        return (self.edit, *self.contradictions, *self.reworded, *self.duplicates, *self.neighbours)


def groups(split: str, data: Path | None, count: int) -> list[ConflictGroup]:
    """The same ones for the same arguments, in a random order.

    Args:
        split: `train` or `dev`.
        data: data folder, or None: invented facts alone.
        count: scale, see `SETS` and `INVENTED`.
    """
    found: list[ConflictGroup] = []
    subjects: set[str] = set()
    for name, share in SETS[split].items():
        records = _records(data, name, split)
        random.Random(f"{SEED}-{name}").shuffle(records)
        found += list(_published(name, records, round(share * count), subjects))
    found += _invented(split, round(INVENTED[split] * count))
    found = list({group.edit: group for group in found}.values())
    random.Random(SEED).shuffle(found)
    return found


def _records(data: Path | None, name: str, split: str) -> list[Record]:
    """All of a published set; none where it is absent."""
    if data is None:
        return []
    path = data / "edits" / f"{name}.{split}{SUFFIX}"
    if path.is_file():
        return read_records(path)
    logger.warning("no %s: going without it", path.name)
    return []


def _published(name: str, records: Sequence[Record], count: int, subjects: set[str]) -> Iterator[ConflictGroup]:
    """One group for each subject: published sets contradict themselves and one another."""
    by_subject: dict[str, list[EditRecord]] = defaultdict(list)
    for record in records:
        by_subject[record.edits[0].subject or ""].append(record.edits[0])
    taken = 0
    for record in records:
        subject = record.edits[0].subject or ""
        if taken == count:
            return
        if subject.lower() in subjects:
            continue
        group = _of_record(name, record, by_subject)
        if group is not None:
            taken += 1
            subjects.add(subject.lower())
            yield group


def _of_record(name: str, record: Record, by_subject: dict[str, list[EditRecord]]) -> ConflictGroup | None:
    edit = record.edits[0]
    new, old, subject = edit.target_new, edit.target_old, edit.subject
    if not new or not old or not subject or new.lower() == old.lower():
        return None
    contradictions = [_with_object(edit.statement, new, old)]
    if name == "conflict":
        later = record.edits[-1]
        if (later.subject, later.relation) != (edit.subject, edit.relation) or later.target_new in (None, new):
            return None
        contradictions = [later.statement]
    if contradictions[0] is None:
        return None
    ways = [q.prompt for q in record.queries if q.type == "rephrase" and not q.subtype and "?" not in q.prompt]
    ways = [] if name in ("counterfact", "conflict", "zsre", "wiki_cf") else ways[:2]
    others = [
        f"{q.prompt} {q.answers[0]}."
        for q in record.queries
        if q.type == "locality" and q.subtype in MERE and q.answers and "?" not in q.prompt
    ]
    aside = [e.statement for e in by_subject[subject] if e.relation and e.relation != edit.relation]
    neighbours = [text for text in [*others[:2], *aside[:1]] if not _asks_the_same(text, edit)]
    several = name in MULTI_VALUED
    return ConflictGroup(
        name,
        edit.statement,
        () if several else tuple(text for text in contradictions if text),
        () if several else tuple(f"{way} {old}." for way in ways),
        tuple(f"{way} {new}." for way in ways),
        tuple(neighbours),
    )


def _with_object(statement: str, new: str, old: str) -> str | None:
    """The statement with its last words replaced."""
    for end in (f"{new}.", new):
        if statement.endswith(end):
            return statement[: -len(end)] + old + end[len(new) :]
    return None


def _asks_the_same(text: str, edit: EditRecord) -> bool:
    """A published neighbour that names the subject and has the edit's own words or its former object: it asks the very
    question."""
    if (edit.subject or "").lower() not in text.lower():
        return False
    said = edit.statement.replace(edit.target_new or "\0", " ")
    return (edit.target_old or "\0").lower() in text.lower() or _words(said) <= _words(text)


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower())) - _SMALL


def _invented(split: str, count: int) -> list[ConflictGroup]:
    source = FactSource(SEED + (split == "dev"), held_out=split == "dev")
    rng = random.Random(f"{SEED}-{split}")
    return [_of_fact(source, rng, fact) for fact in source.distinct(count)]


def _of_fact(source: FactSource, rng: random.Random, fact: Fact) -> ConflictGroup:
    other = fact
    while other.answer == fact.answer:
        other = source.fact(subject=fact.subject, relation=fact.relation)
    ways = [way for way in fact.relation.statements if _said(way, fact.subject, fact.answer) != fact.statement]
    same = next(way for way in fact.relation.statements if _said(way, fact.subject, fact.answer) == fact.statement)
    way, another = (rng.choice(ways or [same]) for _ in range(2))
    aside = source.fact(subject=fact.subject, relation=source.other_relation(fact.relation))
    beside = source.fact(subject=source.similar_subject(fact), relation=fact.relation)
    return ConflictGroup(
        "invented",
        fact.statement,
        (_said(same, fact.subject, other.answer),),
        (_said(another, fact.subject, other.answer),) if ways else (),
        (_said(way, fact.subject, fact.answer),) if ways else (),
        (aside.statement, beside.statement),
    )


def _said(way: str, subject: str, answer: str) -> str:
    text = way.format(s=subject, o=answer)
    return text[:1].upper() + text[1:]
