"""How many facts fit: the paper's laws, its published constants, and the noise that explains them. Pure arithmetic.

load          N ln N / (E U)                    linear, one value each (theorem 1; 2605.10795 has 1/2 as the optimum)
load          N / (F E), N ln N / (F E)         MLP, M fixed answers or one each (theorem 2)
noise         N / (E U)                         variance of the right score, which is 1, of a sum of outer products
              max(0, N / E - 1) / U             of least squares: what E dimensions hold exactly is no noise
              the same + 1 / E + 1 / U          of a wrong score: its own key and its own code look like the right ones
logit scale   ln(N / error) / (1 - sqrt(2 ln N / E))    for a softmax that finds its key among N
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

LIKELY = 0.99
"""Share of facts that must come back: N99 is the largest N with it."""


class Rule(StrEnum):
    """How a linear memory is written."""

    HEBBIAN = "hebbian"
    RIDGE = "ridge"
    TRAINED = "trained"


class Range(NamedTuple):
    """Constant c of a law, as published or as measured before."""

    low: float
    high: float
    source: str


PUBLISHED = {
    Rule.HEBBIAN: Range(0.08, 0.20, "2605.10795, 2605.05189; widths 16 to 128"),
    Rule.RIDGE: Range(0.18, 0.26, "widths 16 to 128"),
    Rule.TRAINED: Range(0.70, 1 / 1.3, "the paper's fit N ln N = E U / 1.3; all facts right: 1/2"),
}
"""N99 ln N99 / (E U). They grow with the width (see `expected_recall`): a width of 1,024 holds more than they say."""

MLP_SHARED = 1.2
"""N = F E / 1.2 with 32 answers for all facts (the paper's fit)."""

MLP_OWN = 0.35
"""N ln N = F E / 0.35 with a value for each fact (the paper's fit)."""

FACTS_PER_PARAMETER = 0.15
"""Of one-layer transformers whose relations have eight answers each (the paper's fit)."""

SAFE_TRAINED = 0.5
"""Load of a trained memory that theory allows with all facts right."""

_NODES = 64
_SPREAD = 8.0


def load(num_facts: int, key_width: float, value_width: float) -> float:
    """N ln N / (E U)."""
    return num_facts * math.log(max(2, num_facts)) / (key_width * value_width)


def facts_at_load(limit: float, key_width: float, value_width: float) -> int:
    """The largest N with a load of `limit` or less; at least 1."""
    return largest_that(lambda n: load(n, key_width, value_width) <= limit)


def expected_recall(rule: Rule, num_facts: int, key_width: float, value_width: float) -> float:
    """Share of N facts whose code scores above the N - 1 others, for random keys and codes.

    Scores are normal with the variances of the module's table: the integral of phi(z) Phi((1 + r z) / w)^(N - 1). A
    trained memory has no noise up to its load of 1/2; beyond, nothing is promised.
    """
    if num_facts < 2:
        return 1.0
    if rule is Rule.TRAINED:
        return 1.0 if load(num_facts, key_width, value_width) <= SAFE_TRAINED else 0.0
    ratio = num_facts / key_width
    right = (ratio if rule is Rule.HEBBIAN else max(0.0, ratio - 1)) / value_width
    own_key = 1 / key_width if rule is Rule.HEBBIAN else max(0.0, 1 / key_width - 1 / num_facts)
    wrong = math.sqrt(right + own_key + 1 / value_width)
    steps = [_SPREAD * (2 * (i + 0.5) / _NODES - 1) for i in range(_NODES)]
    weights = [math.exp(-z * z / 2) for z in steps]
    leads = [(1 + math.sqrt(right) * z) / wrong for z in steps]
    shares = [math.exp((num_facts - 1) * math.log(max(1e-300, 1 - _above(lead)))) for lead in leads]
    return sum(w * share for w, share in zip(weights, shares, strict=True)) / sum(weights)


def facts_recalled(rule: Rule, key_width: float, value_width: float, recall: float = LIKELY) -> int:
    """The largest N whose expected recall is at least `recall`; at least 1."""
    return largest_that(lambda n: expected_recall(rule, n, key_width, value_width) >= recall)


def logit_scale(num_facts: int, key_width: float, error: float = 0.01) -> float:
    """What a match must score for a softmax over N keys to give it 1 - `error`; infinite where the width is too small.

    Other keys of a width E score up to sqrt(2 ln N / E) of a match.
    """
    lead = 1 - math.sqrt(2 * math.log(max(2, num_facts)) / key_width)
    return math.log(num_facts / error) / lead if lead > 0 else math.inf


def _above(value: float) -> float:
    """P(a standard normal number is above `value`)."""
    return math.erfc(value / math.sqrt(2)) / 2


def largest_that(holds: Callable[[int], bool]) -> int:
    """The largest number for which something holds that holds for all smaller ones; 1 is not asked."""
    low, high = 1, 2
    while holds(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
