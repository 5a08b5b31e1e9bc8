"""Records -> the N edits that are active at once and the questions about them, drawn by seed.

Edits of different records must not contradict each other, and no locality question may ask what another edit changed:
such records and questions are left out and counted. With one edit a record, a larger N begins with the smaller one's.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from incomes_plugin.errors import InvalidValue
from incomes_plugin.evaluation.interface import EditText, Question, Turn
from incomes_plugin.evaluation.metrics import plain
from incomes_plugin.evaluation.records import EDITED_ELSEWHERE_FLAG, OVERWRITE_FLAG, EditRecord, QueryRecord, Record

ABOUT_NO_EDIT = ("locality", "unanswerable")
ABOUT_ALL_EDITS = ("portability", "multihop")


@dataclass(frozen=True)
class Selection:
    """What is active and what is asked.

    Attributes:
        records: records whose edits are active; `asked` of them are asked about.
        contradicting: records left out because an active one says otherwise.
        overruled: questions left out because another active edit changed their answer.
    """

    edits: tuple[EditText, ...]
    questions: tuple[Question, ...]
    records: int
    asked: int
    contradicting: int
    overruled: int


@dataclass
class _Active:
    """Edits taken so far."""

    texts: dict[str, int] = field(default_factory=dict)
    says: dict[tuple[str, ...], str] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    contradicting: int = 0

    def take(self, record: Record) -> None:
        says = dict(_says(record))
        if any(self.says.get(key, target) != target for key, target in says.items()):
            self.contradicting += 1
            return
        self.says |= says
        self.records.append(record)
        for edit in record.edits:
            self.texts.setdefault(edit.statement, len(self.texts))


def select(records: Sequence[Record], *, num_edits: int, limit: int, seed: int, shuffle: bool = True) -> Selection:
    """Draw edits until `num_edits` are active (or the records are used up) and the questions of `limit` records.

    Raises:
        InvalidValue: not even one record fits.
    """
    order = list(records)
    if shuffle:
        random.Random(seed).shuffle(order)
    active = _Active()
    for record in order:
        new = sum(edit.statement not in active.texts for edit in record.edits)
        if len(active.texts) + new <= num_edits:
            active.take(record)
    if not active.records:
        raise InvalidValue(f"no record has at most {num_edits} edits; raise --edits", param="edits")
    asked = active.records[:limit]
    questions = [question for record in asked for question in _questions(record, active.texts)]
    changed = {key[0] for key in active.says if len(key) == 1}
    several = len(active.records) > 1
    elsewhere = {record.id for record in asked if several and EDITED_ELSEWHERE_FLAG in record.flags}
    kept = [question for question in questions if not _overruled(question, changed, elsewhere)]
    asks = {place: asked for record in active.records for place, asked in _asks(record, active.texts)}
    return Selection(
        edits=tuple(EditText(i, text, *asks.get(i, (None, None))) for text, i in active.texts.items()),
        questions=tuple(kept),
        records=len(active.records),
        asked=len(asked),
        contradicting=active.contradicting,
        overruled=len(questions) - len(kept),
    )


def _says(record: Record) -> Iterator[tuple[tuple[str, ...], str]]:
    """What a record makes true: by prompt, and by subject and relation where it names them."""
    for query in record.queries:
        if query.type == "rewrite" and query.answers:
            yield (plain(query.prompt),), plain(query.answers[0])
    for edit in record.edits:
        if edit.subject and edit.relation and edit.target_new:
            yield (plain(edit.subject), edit.relation), plain(edit.target_new)


def _asks(record: Record, texts: dict[str, int]) -> Iterator[tuple[int, tuple[str, str]]]:
    """Index of an edit, its rewrite prompt and what that should give."""
    for query in record.queries:
        if query.type == "rewrite" and query.answers:
            edit = record.edits[_place(query, record.edits)]
            yield texts[edit.statement], (query.prompt, query.answers[0])


def _questions(record: Record, texts: dict[str, int]) -> Iterator[Question]:
    indices = tuple(texts[edit.statement] for edit in record.edits)
    for number, query in enumerate(record.queries):
        place = None if query.type in ABOUT_NO_EDIT else _place(query, record.edits)
        needs = indices if query.type in ABOUT_ALL_EDITS else () if place is None else (indices[place],)
        yield Question(
            id=f"{record.id}/{number}",
            type=query.type,
            subtype=query.subtype,
            prompt=query.prompt,
            answers=query.answers,
            edit=None if place is None else indices[place],
            cloze=not query.prompt.endswith(("?", ".", "!")),
            old_answers=query.old_answers,
            needs=needs,
            history=tuple(Turn(turn.role, turn.content) for turn in query.history),
            overwritten=OVERWRITE_FLAG in record.flags,
        )


def _place(query: QueryRecord, edits: Sequence[EditRecord]) -> int:
    """The edit a question is about: named, else the last whose new target it asks for, else the last."""
    if query.edit is not None and 0 <= query.edit < len(edits):
        return query.edit
    wanted = {plain(answer) for answer in query.answers}
    asked = [i for i, edit in enumerate(edits) if edit.target_new and plain(edit.target_new) in wanted]
    named = [i for i in asked if plain(edits[i].subject or "") in plain(query.prompt)]
    return (named or asked or [len(edits) - 1])[-1]


def _overruled(question: Question, changed: set[str], elsewhere: set[str]) -> bool:
    if question.type in ABOUT_NO_EDIT:
        return plain(question.prompt) in changed
    return question.type == "multihop" and question.id.rsplit("/", 1)[0] in elsewhere
