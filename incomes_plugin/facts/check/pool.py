"""A dictionary in the gist pool: greedy answers of the edit-capable model on the reference path."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from incomes_plugin.errors import InvalidValue
from incomes_plugin.facts.check.dictionary import Entry
from incomes_plugin.facts.check.keys import Asker
from incomes_plugin.facts.check.memories import LATER, Questions
from incomes_plugin.facts.check.outcome import Outcome
from incomes_plugin.gist.types import Gist
from incomes_plugin.model.hf import ReferencePool
from incomes_plugin.training.data.facts import UNKNOWN_ANSWER

NAME = "gist pool"
MAX_ANSWER_TOKENS = 16
_AT_ONCE = 64


def check_pool(asker: Asker, entries: Sequence[Entry], questions: Questions, ask: int) -> Outcome:
    """The same row for the pool, from a sample of `ask` of each kind of question.

    Raises:
        InvalidValue: a fact is too long for the model, with its subject, the limit and what to do.
    """
    gists = _captured(asker, entries)
    pool, old = ReferencePool.of(gists), round((1 - LATER) * len(entries))
    before = ReferencePool.of(gists[:old])
    places = _sample(range(len(entries)), ask)
    said = {place: _said(asker, questions.stored[place], pool) for place in places}
    right = {place: answer == entries[place].answer for place, answer in said.items()}
    abstained, recall = _share([answer == UNKNOWN_ANSWER for answer in said.values()]), _share(right.values())
    olds = [place for place in places if place < old]
    return Outcome(
        name=NAME,
        asked=len(said),
        recall=recall,
        wrong=max(0.0, 1 - recall - abstained),
        abstained=abstained,
        rephrased=_share([_said(asker, questions.rephrased[p], pool) == entries[p].answer for p in places]),
        foreign=_share([_said(asker, q, pool) != UNKNOWN_ANSWER for q in _sample(questions.foreign, ask)]),
        fires=_share([_reads(asker, q, pool) for q in _sample(questions.unrelated[1::2], 2 * ask)]),
        old_before=_share([_said(asker, questions.stored[p], before) == entries[p].answer for p in olds]),
        old_after=_share([right[p] for p in olds]),
        new_after=_share([right[p] for p in places if p >= old]),
        num_bytes=sum(gist.num_bytes for gist in gists),
    )


def _captured(asker: Asker, entries: Sequence[Entry]) -> list[Gist]:
    texts, most = [asker.ids(entry.stated) for entry in entries], asker.model.adapter.max_edit_tokens
    for entry, text in zip(entries, texts, strict=True):
        if len(text) > most:
            raise InvalidValue(
                f"the statement of {entry.subject!r} has {len(text)} tokens, the limit of this model is {most}; "
                "shorten it, or split the fact", param="statement",
            )  # fmt: skip
    parts = (texts[first : first + _AT_ONCE] for first in range(0, len(texts), _AT_ONCE))
    return [gist for part in parts for gist in asker.model.capture_all(part)]


def _said(asker: Asker, question: str, pool: ReferencePool) -> str:
    stop = asker.tokenizer.eos_token_id
    ids = asker.model.generate(asker.chat_ids(question), pool, max_tokens=MAX_ANSWER_TOKENS, stop_id=stop)  # type: ignore[arg-type]
    return str(asker.tokenizer.decode(ids, skip_special_tokens=True)).strip()


def _reads(asker: Asker, prompt: str, pool: ReferencePool) -> bool:
    """Whether any token of the prompt reads an edit; without a router all do."""
    asker.model.logits(asker.chat_ids(prompt), pool)
    picks = asker.model.picks
    return picks is None or bool((picks.weights > 0).any())


def _sample(items: Sequence, count: int) -> list:
    """At most `count`, evenly spread."""
    step = max(1, len(items) // max(1, count))
    return list(items[::step])[:count]


def _share(hits: Collection[bool]) -> float:
    return sum(hits) / len(hits) if hits else 0.0
