"""Answers -> shares with 95 % intervals. What counts as right, and which question counts for which metric."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from incomes_plugin.lab.evaluation.interface import Answer, EvalQuestion

_Z = 1.96
_ARTICLES = {"a", "an", "the"}
STRICT = "_strict"
"""Suffix of a metric that asks for the whole answer."""


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
        return cls._wilson(sum(hits), len(hits))

    @classmethod
    def together(cls, shares: Sequence[Share]) -> Share:
        """Of several draws: their outcomes counted together."""
        n = sum(share.n for share in shares)
        return cls._wilson(round(sum(share.value * share.n for share in shares)), n)

    @classmethod
    def means_together(cls, means: Sequence[Share]) -> Share:
        """Of several draws: the mean of means, with the mean of their intervals."""
        value, low, high = (
            round(fmean(getattr(mean, name) for mean in means), 4) for name in ("value", "ci_low", "ci_high")
        )
        return cls(value, low, high, sum(mean.n for mean in means))

    @classmethod
    def _wilson(cls, hits: int, n: int) -> Share:
        p = hits / n
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
    """A question with what the method said, and what the base says without edits (asked where that counts).

    Attributes:
        lead: text of the edit that is named first as what the answer rests on; empty where none is.
    """

    question: EvalQuestion
    answer: Answer
    without_edits: Answer | None = None
    lead: str = ""

    @property
    def match(self) -> bool:
        """The answer says what is expected, among other words perhaps."""
        asked = self.question
        return says(self.answer.text, asked.answers) and (not asked.also or says(self.answer.text, asked.also))

    @property
    def strict(self) -> bool:
        """The answer is what is expected and nothing else."""
        return not self.question.also and plain(self.answer.text) in {plain(answer) for answer in self.question.answers}

    @property
    def unchanged(self) -> bool:
        """The greedy tokens are those of the base without edits."""
        return self.without_edits is not None and self.answer.tokens == self.without_edits.tokens

    @property
    def failed(self) -> bool:
        """It changed what no edit answers, or did not say what is expected. What the base itself gets wrong about
        something that no edit answers is no failure."""
        if self.question.type in COMPARED:
            return self.without_edits is not None and not self.unchanged
        return bool(self.question.answers) and not self.match

    @property
    def later_wins(self) -> bool:
        """The answer says what is expected and nothing that was right before."""
        return self.match and not says(self.answer.text, self.question.old_answers)


ALIAS = "subject_aliasing"
"""Rephrases that name the subject otherwise than the edit does: KnowEdit counts them as portability."""

Metrics = dict[str, Share]
_RIGHT: dict[str, Callable[[EvalQuestion], bool]] = {
    "reliability": lambda q: q.type == "rewrite",
    "generalization": lambda q: q.type == "rephrase" and q.subtype != ALIAS,
    "generalization_cloze": lambda q: q.type == "rephrase" and q.subtype != ALIAS and q.cloze,
    "portability_alias": lambda q: q.type == "rephrase" and q.subtype == ALIAS,
    "portability": lambda q: q.type == "portability",
    "multihop": lambda q: q.type == "multihop",
    "two_edits": lambda q: q.type == "two_edits",
    "multi_turn": lambda q: q.type == "multi_turn",
    "known_right": lambda q: q.type == "known",
    "verbatim_number": lambda q: q.type == "rewrite" and field_kind(q.answers[0]) == "number",
    "verbatim_code": lambda q: q.type == "rewrite" and field_kind(q.answers[0]) == "code",
    "verbatim_name": lambda q: q.type == "rewrite" and field_kind(q.answers[0]) == "name",
}
"""Share of right answers among which questions."""

COMPARED = ("locality", "near_miss", "unrelated", "known")
"""Question types that no edit answers: greedy tokens must be the base's."""

_BY_SUBTYPE = ("near_miss", "unrelated")


def summarise(outcomes: Sequence[Outcome]) -> Metrics:
    """Every metric for which something was asked."""
    found: Metrics = {}
    for name, counts in _RIGHT.items():
        found |= _right(name, [o for o in outcomes if counts(o.question)])
    for length in dict.fromkeys(o.question.subtype for o in outcomes if o.question.type == "long_prompt"):
        about = [o for o in outcomes if o.question.type == "long_prompt" and o.question.subtype == length]
        found |= _right(f"long_prompt_{length}", about)
    if both := [o for o in outcomes if o.question.type == "rewrite" and o.question.overwritten]:
        found["conflict_later_wins"] = Share.of([o.later_wins for o in both])
    return found | _unchanged(outcomes) | _attribution(outcomes) | _cost(outcomes)


OF_ORACLE = ("portability", "multihop", "two_edits")
"""Question types that the base answers badly even with the edits in its prompt: judged by what it answers then."""


def of_oracle(outcomes: Sequence[Outcome], oracle: Sequence[Outcome]) -> Metrics:
    """Share of right answers among the questions that the base answers rightly with the edits in its prompt."""
    right = {o.question.id for o in oracle if o.match}
    found: Metrics = {}
    for kind in OF_ORACLE:
        if about := [o.match for o in outcomes if o.question.type == kind and o.question.id in right]:
            found[f"{kind}_of_oracle"] = Share.of(about)
    return found


def _right(name: str, about: Sequence[Outcome]) -> Metrics:
    if not about:
        return {}
    found = {name: Share.of([o.match for o in about])}
    if not any(o.question.also for o in about):
        found[name + STRICT] = Share.of([o.strict for o in about])
    return found


def _unchanged(outcomes: Iterable[Outcome]) -> Metrics:
    """Same tokens as without edits: for each type, and for each kind within it where kinds differ."""
    hits: dict[str, list[bool]] = {}
    for outcome in outcomes:
        kind, subtype = outcome.question.type, outcome.question.subtype
        if kind not in COMPARED or outcome.without_edits is None:
            continue
        hits.setdefault(f"{kind}_unchanged", []).append(outcome.unchanged)
        if kind in _BY_SUBTYPE and subtype:
            hits.setdefault(f"{kind}_{subtype}_unchanged", []).append(outcome.unchanged)
    return {name: Share.of(found) for name, found in hits.items()}


def _attribution(outcomes: Iterable[Outcome]) -> Metrics:
    """`picked`: rewrites for which the right edit was read; `attribution`: of those answered rightly, as the heaviest;
    `attribution_says`: of these, whatever edit is the heaviest, it says what the answer does. Sets have edits that say
    the same twice.

    Left out for a method that never names an edit; an answer without a named edit counts as a miss.
    """
    asked = [o for o in outcomes if o.question.type == "rewrite"]
    if not any(o.answer.applied for o in asked):
        return {}
    found = {"picked": Share.of([o.question.edit in o.answer.applied for o in asked])}
    if right := [o for o in asked if o.match]:
        found["attribution"] = Share.of([o.question.edit in o.answer.applied[:1] for o in right])
        found["attribution_says"] = Share.of([says(o.lead, o.question.answers) for o in right])
    return found


MEANS = ("prompt_tokens_mean",)
"""Metrics that are means, not shares."""


def _cost(outcomes: Iterable[Outcome]) -> Metrics:
    tokens = [float(o.answer.prompt_tokens) for o in outcomes if o.question.type == "rewrite"]
    return {"prompt_tokens_mean": Share.mean_of(tokens)} if tokens else {}


def says(text: str, answers: Iterable[str]) -> bool:
    """Whether one of `answers` stands in `text` as whole words, but for case, punctuation and articles."""
    said = f" {plain(text)} "
    return any(f" {wanted} " in said for wanted in map(plain, answers) if wanted)


def plain(text: str) -> str:
    """Lower case without punctuation and articles, as SQuAD compares; figures keep their decimal point.

    A mark between words parts them ("Paris's" says "Paris"); within an abbreviation or a figure it is left out.
    """
    joined = _WITHIN.sub("", _ABBREVIATION.sub(lambda found: found[0].replace(".", ""), text.lower()))
    words = _MARK.sub(" ", joined).split()
    return " ".join(word for word in words if word not in _ARTICLES)


_ABBREVIATION = re.compile(r"\b(?:[^\W\d]\.){2,}")
_WITHIN = re.compile(r"(?<=\d),(?=\d)")
_MARK = re.compile(r"(?<!\d)\.|\.(?!\d)|[^\w\s.]|_")


def field_kind(answer: str) -> str:
    """`code` (letters and digits in one word, or a dashed number), `number`, `name` (capitalised words) or `word`."""
    words = answer.split()
    if any(re.search(r"\d", word) and re.search(r"[A-Za-z-]", word) for word in words):
        return "code"
    if re.search(r"\d", answer):
        return "number"
    return "name" if words and all(word[:1].isupper() for word in words) else "word"
