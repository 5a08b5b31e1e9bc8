"""From one edit on to the next: what a picked edit leaves open of a question is asked again, with what the edit says.

"What is the home town of the founder of Xcor?" picks "The founder of Xcor is Ann Zed."; left open are "What home town?"
and "Ann Zed", and together they find "The home town of Ann Zed is Quill." A question whose pick leaves little open is
not asked again, so most requests are routed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from incomes_plugin.selection.likeness import same_tokens
from incomes_plugin.selection.routing import QUESTION_TOKENS

_COVERED = 0.7
"""Cosine from which a token of weight shows that a line belongs to the question."""

_OPEN = 0.4
"""Cosine below which a token is open, the more the smaller it is. Measured, as the next: docs/experiments.md."""

NAMED = 0.2
"""Share of what a pick says that an edit must name if the pick has led to it."""


class Query(NamedTuple):
    """What is asked.

    Attributes:
        features: `[T, F]`: tokens of the question, then those of the edit that was picked last.
        asked: how many of them are the question's.
    """

    features: torch.Tensor
    asked: int

    def since(self, first: int) -> Query:
        """Without the first tokens of the question."""
        return Query(self.features[first:], self.asked - first)

    @classmethod
    def of(cls, question: torch.Tensor) -> Query:
        """A question `[T, F]` itself; only its last QUESTION_TOKENS count."""
        question = question[-QUESTION_TOKENS:].float()
        return cls(question, len(question))


def beginning(weights: torch.Tensor, covered: torch.Tensor, lines: Sequence[int]) -> int:
    """Where a question begins: at the line with the first token of weight that its picks cover. Of what stands in
    lines before, a text for instance, nothing is open.

    Args:
        weights: `[T]`, w of its tokens.
        covered: `[T]`, the largest cosine of each with a token of a pick.
        lines: places at which a further line begins.
    """
    found = ((covered >= _COVERED) & (weights >= weights.mean() / 2)).nonzero()
    first = int(found[0]) if lines and len(found) else 0
    return max((place for place in lines if place <= first), default=0)


def left_open(weights: torch.Tensor, covered: torch.Tensor) -> float:
    """How much of a question its picks leave open: the sum over tokens t of w_t max(0, `_OPEN` - c_t). A sum and no
    mean, so that of a short question a single word is not much.

    Args:
        weights: `[T]`, w of its tokens.
        covered: `[T]`, c, the largest cosine of each with a token of a pick.
    """
    return float(weights @ (_OPEN - covered).clamp_min(0.0))


def onward(query: Query, edit: torch.Tensor, num_parts: int) -> Query:
    """What to ask next: tokens of the question that no pick has had, then those of the pick that the query lacks. What
    an earlier pick said has led to this one, and is not asked for again.

    Args:
        query: by which the pick was found.
        edit: `[E, F]` features of the pick.
        num_parts: feature layers.
    """
    edit = edit.to(query.features)
    same = same_tokens(query.features[None], edit[None], num_parts)[0]
    said = edit[~same.any(0)]
    features = torch.cat([query.features[: query.asked][~same[: query.asked].any(1)], said])[-QUESTION_TOKENS:]
    return Query(features, max(0, len(features) - len(said)))


def shares(query: Query, weights: torch.Tensor, of: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted means over what is left of the question, and over what the pick says; 0 over nothing.

    Args:
        query: what was asked with a pick.
        weights: `[T]`, w of its tokens.
        of: `[T, ...]`.
    """

    def mean(part: slice) -> torch.Tensor:
        return torch.tensordot(weights[part], of[part], 1) / weights[part].sum().clamp_min(1e-9)

    return mean(slice(query.asked)), mean(slice(query.asked, None))


def led_to(query: Query, weights: torch.Tensor, covered: torch.Tensor, named: torch.Tensor) -> float:
    """By how much better an edit covers what the pick before it says than what the question leaves open, as a weighted
    mean cosine. Above 0 that pick has only led to it. Of a question about two edits each is found by its own half. An
    edit that names hardly anything of what the pick says was not led to, and has 0 at most.

    Args:
        query: what was asked with the pick before it.
        weights: `[T]`, w of its tokens.
        covered: `[T]`, the largest cosine of each with a token of the edit.
        named: `[T]` bool, whether the edit has this very token.
    """
    left, said = shares(query, weights, covered.clamp_min(0.0))
    _, names = shares(query, weights, named.float())
    more = float(said - left)
    return more if float(names) >= NAMED else min(more, 0.0)
