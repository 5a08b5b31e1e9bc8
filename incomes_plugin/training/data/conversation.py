"""Conversations about the edits of a pool, as token rows with what each position should predict and select."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from incomes_plugin.training.data.corpus import EditRecord
from incomes_plugin.training.data.facts import UNKNOWN_ANSWER, Fact, FactSource
from incomes_plugin.training.data.smalltalk import SMALLTALK
from incomes_plugin.training.data.vocabulary import Vocabulary
from incomes_plugin.training.data.wording import request, wrapped

Stated = tuple[str, Callable[[], str], str]
"""A fact in the system message: its statement, a source of questions, its answer."""

_STATED = ((100, (1, 1, 1, 2)), (300, (1, 3, 5, 8)), (math.inf, (5, 5, 10, 20)))
"""How many facts may stand in the system message of a row that is shorter than so many tokens."""

IGNORE = -1
ZERO = -2
"""Selection targets beside an index into the pool's entries."""


@dataclass(frozen=True)
class Mix:
    """Shares of what a conversation turn is about; what is left asks for an edit of the pool.

    Attributes:
        unknown: asks what no edit of the pool says (half of them near misses): the answer is "I do not know".
        in_context: facts stand in the system message, not in the pool, and half of the turns ask about them.
        smalltalk: greetings and the like.
        text: rows of running text instead of a conversation.
        repeat: rows of running text that repeat a passage: copying from the context is learned sooner.
        published: edits from published training data instead of invented facts.
        cloze: the question is a sentence to complete.
        wrapped: the question has words around it or is typed carelessly.
        passage: a piece of running text stands in front of the question.
    """

    unknown: float = 0.25
    in_context: float = 0.25
    smalltalk: float = 0.03
    text: float = 0.03
    repeat: float = 0.06
    published: float = 0.4
    cloze: float = 0.2
    wrapped: float = 0.2
    passage: float = 0.1


@dataclass(frozen=True)
class PoolEdit:
    """An edit of the pool.

    Attributes:
        ids: tokens of its text.
        fact: the invented fact it states, or None for a published edit.
        prompts: prompts of a published edit.
        answer: what its prompts ask for.
        others: prompts of a published edit that it must not answer.
        text: text of a published edit.
        first_entry, num_entries: its gist entries in the batch; entry `first_entry + k` stands for token `-1 - k`.
    """

    ids: list[int]
    fact: Fact | None
    prompts: tuple[str, ...]
    answer: str
    others: tuple[str, ...] = ()
    text: str = ""
    first_entry: int = 0
    num_entries: int = 0

    @property
    def about(self) -> str:
        """Subject and relation, or the first prompt of a published edit: two edits about the same contradict."""
        return self.prompts[0] if self.fact is None else f"{self.fact.subject}|{self.fact.relation.name}"


@dataclass
class Row:
    """One sequence under construction; `weight[i]` and `target[i]` belong to position i, which predicts token i + 1."""

    ids: list[int] = field(default_factory=list)
    weight: list[float] = field(default_factory=list)
    target: list[int] = field(default_factory=list)

    def add(self, ids: list[int], weight: float, targets: list[int] | None = None) -> None:
        """Append tokens that should be predicted with `weight` from the entries `targets` (default: the zero-gist)."""
        for token, target in zip(ids, targets or [ZERO] * len(ids), strict=True):
            if self.ids:
                self.weight[-1], self.target[-1] = weight, target
            self.ids.append(token)
            self.weight.append(0.0)
            self.target.append(IGNORE)

    def extend(self, turn: Row) -> None:
        """Append a finished turn; nothing is asked of the position before it."""
        if self.ids:
            self.weight[-1], self.target[-1] = 0.0, IGNORE
        self.ids += turn.ids
        self.weight += turn.weight
        self.target += turn.target


class Conversations:
    """Draws rows about pools of edits.

    Args:
        words: the tokenizer's ids.
        facts: source of facts that no edit states.
        texts: running text (may be empty).
        records: published edits (may be empty) for facts in the system message.
    """

    def __init__(
        self,
        words: Vocabulary,
        facts: FactSource,
        texts: list[str],
        records: list[EditRecord],
        mix: Mix,
        *,
        seed: int,
    ) -> None:
        self._words = words
        self._facts = facts
        self._texts = texts
        self._records = records
        self._mix = mix
        self._rng = random.Random(seed)
        self._passage: list[int] = []
        self._opening: list[int] = []

    def row(self, pool: Sequence[PoolEdit], longest: int) -> Row:
        """A conversation that may read `pool`, or a piece of running text; turns are added up to `longest` tokens.

        Without a pool there are always facts in the system message.
        """
        row = Row()
        row.add(self._words.begin, 0.0)
        self._opening = self._words.first_open
        draw = self._rng.random() if self._texts else 1.0
        if draw < self._mix.text:
            row.add(self._words.encode(self._rng.choice(self._texts))[: longest - 1], 0.3)
            return row
        if draw < self._mix.text + self._mix.repeat:
            self._repeat(row, longest)
            return row
        stated = self._state(row, longest) if not pool or self._rng.random() < self._mix.in_context else []
        if self._texts and longest > 2 * len(row.ids) + 100 and self._rng.random() < 0.5:
            self._passage = self._words.encode(self._rng.choice(self._texts))[: longest - 60]
        start = len(row.ids)
        while True:
            turn = Row()
            if stated and (len(row.ids) == start or self._rng.random() < 0.5):
                _, question, answer = self._rng.choice(stated)
                self._say(turn, question(), self._words.encode(answer), None)
            else:
                self._turn(turn, pool)
            if len(row.ids) > start and len(row.ids) + len(turn.ids) > longest:
                return row
            row.extend(turn)

    def _repeat(self, row: Row, longest: int) -> None:
        """A passage, some other words, and the passage again, which can be predicted."""
        words = self._words.encode(self._rng.choice(self._texts))
        passage = words[: self._rng.randint(5, max(5, min(len(words), longest // 2 - 8)))]
        between = self._words.encode(self._rng.choice(self._texts))[: self._rng.randint(1, 12)]
        row.add([*passage, *between, *passage[:1]], 0.05)
        row.add(passage[1:], 1.0)
        del row.ids[longest:], row.weight[longest:], row.target[longest:]

    def _turn(self, row: Row, pool: Sequence[PoolEdit]) -> None:
        draw = self._rng.random()
        if draw < self._mix.smalltalk:
            question, reply = self._rng.choice(SMALLTALK)
            if self._rng.random() < 0.4:
                question, reply = request(self._rng), UNKNOWN_ANSWER
            self._say(row, question, self._words.encode(reply), None)
            return
        if not pool:
            self._say(row, self._ask(self._facts.fact()), self._words.encode(UNKNOWN_ANSWER), None)
            return
        edit = self._rng.choice(pool)
        edit = next(later for later in reversed(pool) if later.about == edit.about)
        if draw < self._mix.smalltalk + self._mix.unknown:
            self._unknown_turn(row, edit, pool)
            return
        answer = self._words.encode(edit.answer)
        prompt = self._rng.choice(edit.prompts) if edit.fact is None else self._ask(edit.fact)
        self._say(row, prompt, answer, self._entries(edit, answer))

    def _entries(self, edit: PoolEdit, answer: list[int]) -> list[int]:
        """The pool entry each answer token is copied from, and for the end the one that follows in the edit text.

        Reading on tells the model that the answer is over. IGNORE where the edit's gists do not hold the token.
        """
        start = _find(edit.ids, answer)
        if start is None:  # the edit begins with it
            capital = self._words.encode(edit.answer[:1].upper() + edit.answer[1:])
            start = _find(edit.ids, capital) if len(capital) == len(answer) else None
        if start is None:  # tokenizers that keep the space before a word in its token
            spaced = self._words.encode(" " + edit.answer)
            start = _find(edit.ids, spaced) if len(spaced) == len(answer) else None
        if start is None:
            return [IGNORE] * (len(answer) + 1)
        slots = [len(edit.ids) - 1 - (start + j) for j in range(len(answer) + 1)]
        return [edit.first_entry + s if 0 <= s < edit.num_entries else IGNORE for s in slots]

    def _ask(self, fact: Fact) -> str:
        """A question or a cloze for `fact`, in any of its wordings."""
        relation = fact.relation
        wordings = relation.clozes if self._rng.random() < self._mix.cloze else relation.questions
        text = self._rng.choice(wordings).format(s=fact.subject)
        return text[:1].upper() + text[1:]

    def _unknown_turn(self, row: Row, edit: PoolEdit, pool: Sequence[PoolEdit]) -> None:
        if edit.others:
            asked = {p for e in pool for p in e.prompts}
            others = [p for p in edit.others if p not in asked]
            if others:
                self._say(row, self._rng.choice(others), self._words.encode(UNKNOWN_ANSWER), None)
                return
        known = {(e.fact.subject, e.fact.relation.name) for e in pool if e.fact is not None}
        fact = self._near_miss(edit)
        while (fact.subject, fact.relation.name) in known:
            fact = self._facts.fact()
        self._say(row, self._ask(fact), self._words.encode(UNKNOWN_ANSWER), None)

    def _near_miss(self, edit: PoolEdit) -> Fact:
        """Same relation of a similar or another subject, another relation of the same subject, or any other fact."""
        draw = self._rng.random()
        if edit.fact is None or draw < 0.2:
            return self._facts.fact()
        if draw < 0.5:
            return self._facts.fact(relation=edit.fact.relation)
        if draw < 0.75:
            return self._facts.fact(subject=self._facts.similar_subject(edit.fact), relation=edit.fact.relation)
        return self._facts.fact(subject=edit.fact.subject, relation=self._facts.other_relation(edit.fact.relation))

    def _state(self, row: Row, longest: int) -> list[Stated]:
        """One fact or several in the system message; returns those that fit."""
        counts = next(counts for limit, counts in _STATED if longest < limit)
        facts = [self._stated() for _ in range(self._rng.choice(counts))]
        said = [self._words.encode(statement) for statement, _, _ in facts]
        while len(said) > 1 and sum(map(len, said)) > longest // 2:
            said.pop()
        row.add([*self._words.system_open, *(t for ids in said for t in ids)], 0.1)
        self._opening = self._words.system_next
        return facts[: len(said)]

    def _stated(self) -> Stated:
        """Statement, questions and answer of an invented or a published fact."""
        if self._records and self._rng.random() < self._mix.published:
            record = self._rng.choice(self._records)
            return record.statement, lambda: self._rng.choice(record.prompts), record.answer
        fact = self._facts.fact()
        return fact.statement, lambda: self._ask(fact), fact.answer

    def _say(self, row: Row, question: str, answer: list[int], targets: list[int] | None) -> None:
        words = self._words
        if self._rng.random() < self._mix.wrapped:
            question = wrapped(question, self._rng)
        asked, self._passage = [*self._passage, *words.encode(question)], []
        if self._texts and self._rng.random() < self._mix.passage:
            asked = [*words.encode(self._rng.choice(self._texts))[: self._rng.randint(5, 20)], *asked]
        opening, self._opening = self._opening, words.next
        row.add([*opening, *asked, *words.close], 0.05)
        if targets is not None:
            targets = targets + [IGNORE] * (len(words.end) - 1)
        row.add([*answer, *words.end], 1.0, targets)


def _find(ids: list[int], part: list[int]) -> int | None:
    """Start of the last occurrence of `part` in `ids`."""
    for start in range(len(ids) - len(part), -1, -1):
        if ids[start : start + len(part)] == part:
            return start
    return None
