"""Answers -> shares with 95 % intervals. What counts as right, and which question counts for which metric."""

from __future__ import annotations

import math
import re
import string
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from incomes_plugin.evaluation.interface import Answer, Question

_Z = 1.96
_ARTICLES = {"a", "an", "the"}


@dataclass(frozen=True)
class Share:
    """A share with its 95 % Wilson interval, or (`mean_of`) a mean with its normal one."""

    value: float
    ci_low: float
    ci_high: float
    n: int

    @classmethod
    def of(cls, hits: Sequence[bool]) -> Share:
        """From single outcomes, at least one."""
        n, p = len(hits), sum(hits) / len(hits)
        middle = (p + _Z * _Z / (2 * n)) / (1 + _Z * _Z / n)
        half = _Z * math.sqrt(p * (1 - p) / n + _Z * _Z / (4 * n * n)) / (1 + _Z * _Z / n)
        return cls(round(p, 4), round(max(0.0, middle - half), 4), round(min(1.0, middle + half), 4), n)

    @classmethod
    def mean_of(cls, values: Sequence[float]) -> Share:
        """From single measurements, at least one."""
        mean = fmean(values)
        half = _Z * stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
        return cls(round(mean, 4), round(mean - half, 4), round(mean + half, 4), len(values))


@dataclass(frozen=True)
class Outcome:
    """A question with what the method said, and what the same model says without edits (asked where that counts)."""

    question: Question
    answer: Answer
    without_edits: Answer | None = None

    @property
    def strict(self) -> bool:
        """The answer is, character for character, one of the right ones."""
        return self.answer.text.strip() in {answer.strip() for answer in self.question.answers}

    @property
    def match(self) -> bool:
        """The answer is one of the right ones but for case, punctuation and articles."""
        return plain(self.answer.text) in {plain(answer) for answer in self.question.answers}

    @property
    def unchanged(self) -> bool:
        """The greedy tokens are those of the model without edits."""
        return self.without_edits is not None and self.answer.tokens == self.without_edits.tokens


Metrics = dict[str, Share]
_IS_ABOUT: dict[str, Callable[[Question], bool]] = {
    "reliability": lambda q: q.type == "rewrite",
    "generalization": lambda q: q.type == "rephrase",
    "generalization_cloze": lambda q: q.type == "rephrase" and q.cloze,
    "portability": lambda q: q.type == "portability",
    "multihop": lambda q: q.type == "multihop",
    "locality": lambda q: q.type == "locality" and bool(q.answers),
    "unanswerable_refused": lambda q: q.type == "unanswerable",
    "multi_turn": lambda q: q.type == "multi_turn",
    "long_prompt": lambda q: q.type == "long_prompt",
    "conflict_later_wins": lambda q: q.type == "rewrite" and q.overwritten,
    "verbatim_number": lambda q: q.type == "rewrite" and field_kind(q.answers[0]) == "number",
    "verbatim_code": lambda q: q.type == "rewrite" and field_kind(q.answers[0]) == "code",
    "verbatim_name": lambda q: q.type == "rewrite" and field_kind(q.answers[0]) == "name",
}
"""Share of right answers among which questions. Verbatim fields are judged strictly, whatever the data set."""


def summarise(outcomes: Sequence[Outcome], *, strict: bool) -> Metrics:
    """Every metric for which something was asked; where both ways of judging apply, the other one has a suffix."""
    found: Metrics = {}
    for name, is_about in _IS_ABOUT.items():
        about = [o for o in outcomes if is_about(o.question)]
        by_rule = {"strict": [o.strict for o in about], "match": [o.match for o in about]}
        if not about:
            continue
        if name.startswith("verbatim"):
            found[name] = Share.of(by_rule["strict"])
            continue
        rule, other = ("strict", "match") if strict else ("match", "strict")
        found[name] = Share.of(by_rule[rule])
        found[f"{name}_{other}"] = Share.of(by_rule[other])
    return found | _unchanged(outcomes) | _attribution(outcomes, strict) | _cost(outcomes)


def is_right(outcome: Outcome, strict: bool) -> bool:
    """By the rule of the data set."""
    return outcome.strict if strict else outcome.match


def _unchanged(outcomes: Iterable[Outcome]) -> Metrics:
    by_type: dict[str, list[bool]] = {"locality": [], "unrelated": []}
    for outcome in outcomes:
        if outcome.question.type in by_type and outcome.without_edits is not None:
            by_type[outcome.question.type].append(outcome.unchanged)
    return {f"{kind}_unchanged": Share.of(hits) for kind, hits in by_type.items() if hits}


def _attribution(outcomes: Iterable[Outcome], strict: bool) -> Metrics:
    """Of the rewrites answered rightly: the edit with the most weight is the right one.

    Left out for a method that never names an edit; an answer without a named edit counts as a miss.
    """
    used = [o for o in outcomes if o.question.type == "rewrite" and is_right(o, strict)]
    if not any(o.answer.attributed is not None for o in used):
        return {}
    return {"attribution": Share.of([o.answer.attributed in o.question.needs for o in used])}


def _cost(outcomes: Iterable[Outcome]) -> Metrics:
    tokens = [float(o.answer.prompt_tokens) for o in outcomes if o.question.type == "rewrite"]
    return {"prompt_tokens_mean": Share.mean_of(tokens)} if tokens else {}


def plain(text: str) -> str:
    """Lower case without punctuation and articles (the normalisation of SQuAD)."""
    words = text.lower().translate(str.maketrans("", "", string.punctuation)).split()
    return " ".join(word for word in words if word not in _ARTICLES)


def field_kind(answer: str) -> str:
    """`code` (letters and digits in one word, or a dashed number), `number`, `name` (capitalised words) or `word`."""
    words = answer.split()
    if any(re.search(r"\d", word) and re.search(r"[A-Za-z-]", word) for word in words):
        return "code"
    if re.search(r"\d", answer):
        return "number"
    return "name" if words and all(word[:1].isupper() for word in words) else "word"
