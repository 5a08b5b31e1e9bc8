"""Records -> the N edits that are active at once and the questions about them, drawn by seed.

Some records are left out of the pool on purpose: their questions are near misses. Edits of different records must not
contradict each other, and no question about something else may ask what an active edit changed: such records and
questions are dropped and counted. Some sets name no relations, and word one relation in many ways (zsRE): of their
records, one a subject is active. With one edit a record, a larger N begins with the smaller one's.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from incomes_plugin.errors import InvalidValue
from incomes_plugin.lab.data.records import (
    EDITED_ELSEWHERE_FLAG,
    OVERWRITE_FLAG,
    EditRecord,
    QueryRecord,
    Record,
)
from incomes_plugin.lab.evaluation.interface import EvalEdit, EvalQuestion
from incomes_plugin.lab.evaluation.metrics import plain

ABOUT_NO_EDIT = ("locality", "near_miss")
ABOUT_ALL_EDITS = ("portability", "multihop")
MOST_OF_A_TYPE = 2
"""Questions of one type that are asked of one record: some sets have ten neighbours an edit."""


@dataclass(frozen=True)
class Selection:
    """What is active and what is asked.

    Attributes:
        asked: records that are asked about.
        left_out: records whose edits are not in the pool though their questions are asked.
        filled: edits of other data sets, which are in the pool because this one has too few.
        contradicting: records dropped because an active one says otherwise, or answers what was left out.
        overruled: questions dropped because another active edit changed their answer.
    """

    edits: tuple[EvalEdit, ...]
    questions: tuple[EvalQuestion, ...]
    asked: int
    left_out: int = 0
    filled: int = 0
    contradicting: int = 0
    overruled: int = 0


@dataclass
class _Pool:
    """Edits taken so far, and what they say by prompt and by subject and relation."""

    avoided: set[tuple[str, ...]]
    texts: dict[str, int] = field(default_factory=dict)
    says: dict[tuple[str, ...], str] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    contradicting: int = 0

    def take(self, record: Record, room: int) -> None:
        """Make the record's edits active if `room` edits hold them and nothing speaks against it."""
        new = {edit.statement for edit in record.edits} - self.texts.keys()
        if len(self.texts) + len(new) > room:
            return
        says = dict(_says(record))
        if says.keys() & self.avoided or any(self.says.get(key, target) != target for key, target in says.items()):
            self.contradicting += 1
            return
        self.says |= says
        self.records.append(record)
        for edit in record.edits:
            self.texts.setdefault(edit.statement, len(self.texts))


def select(
    records: Sequence[Record],
    *,
    num_edits: int,
    limit: int,
    seed: int,
    left_out: int = 0,
    shuffle: bool = True,
    fill: Iterable[Record] = (),
) -> Selection:
    """Draw edits until `num_edits` are active and the questions of `limit` records.

    Args:
        left_out: records that stay outside the pool; at most a quarter of all.
        fill: records of other sets, for a pool that the records do not fill.

    Raises:
        InvalidValue: not even one record fits.
    """
    order = list(records)
    if shuffle:
        random.Random(seed).shuffle(order)
    num_out = min(left_out, len(order) // 4)
    outside, inside = order[:num_out], order[num_out:]
    pool = _Pool({key for record in outside for key, _ in _says(record)})
    for record in inside:
        pool.take(record, num_edits)
    own = len(pool.texts)
    if not own:
        raise InvalidValue(f"no record has at most {num_edits} edits; raise --edits", param="edits")
    asked = pool.records[:limit]
    _fill_up(pool, fill, num_edits)
    questions = [q for record in asked for q in _questions(record, pool.texts, seed)]
    questions += [q for record in outside for q in _near_misses(record)]
    kept = _not_overruled(questions, pool, asked)
    asks = {place: asked for record in pool.records for place, asked in _asks(record, pool.texts)}
    return Selection(
        edits=tuple(EvalEdit(i, text, *asks.get(i, (None, None))) for text, i in pool.texts.items()),
        questions=tuple(kept),
        asked=len(asked),
        left_out=len(outside),
        filled=len(pool.texts) - own,
        contradicting=pool.contradicting,
        overruled=len(questions) - len(kept),
    )


def _fill_up(pool: _Pool, fill: Iterable[Record], num_edits: int) -> None:
    for record in fill:
        if len(pool.texts) >= num_edits:
            return
        pool.take(record, num_edits)


def _says(record: Record) -> Iterator[tuple[tuple[str, ...], str]]:
    """What a record makes true: by prompt, and by subject and relation; any relation where it names none."""
    for query in record.queries:
        if query.type == "rewrite" and query.answers:
            yield (plain(query.prompt),), plain(query.answers[0])
    for edit in record.edits:
        yield ("statement", plain(edit.statement)), ""
        if edit.subject and edit.target_new:
            yield (plain(edit.subject), edit.relation or "any"), plain(edit.target_new)


def _asks(record: Record, texts: dict[str, int]) -> Iterator[tuple[int, tuple[str, str]]]:
    """Index of an edit, its rewrite prompt and what that should give."""
    for query in record.queries:
        if query.type == "rewrite" and query.answers:
            edit = record.edits[_place(query, record.edits)]
            yield texts[edit.statement], (query.prompt, query.answers[0])


def _questions(record: Record, texts: dict[str, int], seed: int) -> Iterator[EvalQuestion]:
    indices = tuple(texts[edit.statement] for edit in record.edits)
    drawn = list(enumerate(record.queries))
    random.Random(f"{seed}-{record.id}").shuffle(drawn)
    seen: dict[str, int] = {}
    for number, query in drawn:
        seen[query.type] = seen.get(query.type, 0) + 1
        if seen[query.type] > MOST_OF_A_TYPE:
            continue
        place = None if query.type in ABOUT_NO_EDIT else _place(query, record.edits)
        needs = indices if query.type in ABOUT_ALL_EDITS else () if place is None else (indices[place],)
        yield EvalQuestion(
            id=f"{record.id}/{number}",
            type=query.type,
            subtype=query.subtype,
            prompt=query.prompt,
            answers=query.answers,
            edit=None if place is None else indices[place],
            cloze=is_cloze(query.prompt),
            old_answers=query.old_answers,
            needs=needs,
            overwritten=OVERWRITE_FLAG in record.flags,
        )


def _near_misses(record: Record) -> Iterator[EvalQuestion]:
    """The first rewrite of a record whose edits are not in the pool."""
    for number, query in enumerate(record.queries):
        if query.type == "rewrite":
            yield EvalQuestion(
                f"{record.id}/{number}", "near_miss", "left_out", query.prompt, (), None, is_cloze(query.prompt)
            )
            return


def is_cloze(prompt: str) -> bool:
    """Whether a prompt is a sentence to complete."""
    return not prompt.endswith(("?", ".", "!"))


def _place(query: QueryRecord, edits: Sequence[EditRecord]) -> int:
    """The edit a question is about: named, else the last whose new target it asks for, else the last."""
    if query.edit is not None and 0 <= query.edit < len(edits):
        return query.edit
    wanted = {plain(answer) for answer in query.answers}
    asked = [i for i, edit in enumerate(edits) if edit.target_new and plain(edit.target_new) in wanted]
    named = [i for i in asked if plain(edits[i].subject or "") in plain(query.prompt)]
    return (named or asked or [len(edits) - 1])[-1]


def _not_overruled(questions: Sequence[EvalQuestion], pool: _Pool, asked: Sequence[Record]) -> list[EvalQuestion]:
    """Without questions about no edit that an active one answers, and hops that another record edits."""
    changed = {key[0] for key in pool.says if len(key) == 1}
    several = len(pool.records) > 1
    elsewhere = {record.id for record in asked if several and EDITED_ELSEWHERE_FLAG in record.flags}

    def overruled(question: EvalQuestion) -> bool:
        if question.type in ABOUT_NO_EDIT:
            return plain(question.prompt) in changed
        return question.type == "multihop" and question.id.rsplit("/", 1)[0] in elsewhere

    return [question for question in questions if not overruled(question)]
