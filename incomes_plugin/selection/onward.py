"""From one edit on to the next: what a picked edit leaves open of a question is asked again, with what the edit says.

"What is the home town of the founder of Xcor?" picks "The founder of Xcor is Ann Zed."; left open are "What home town?"
and "Ann Zed", and together they find "The home town of Ann Zed is Quill." A question whose pick leaves little open is
not asked again, so most requests are routed once.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from incomes_plugin.selection.routing import QUESTION_TOKENS
from incomes_plugin.selection.verifier import same_tokens

_NAMED = 0.1
"""Share of what a pick says that an edit must name if the pick has led to it. Measured: docs/experiments.md."""


class Query(NamedTuple):
    """What is asked.

    Attributes:
        features: `[T, F]`: tokens of the question, then those of the edit that was picked last.
        asked: how many of them are the question's.
    """

    features: torch.Tensor
    asked: int

    @classmethod
    def of(cls, question: torch.Tensor) -> Query:
        """A question `[T, F]` itself; only its last QUESTION_TOKENS count."""
        question = question[-QUESTION_TOKENS:].float()
        return cls(question, len(question))


def open_share(weights: torch.Tensor, covered: torch.Tensor) -> float:
    """Share of a question's weight that its picks do not cover.

    Args:
        weights: `[T]`, w of its tokens.
        covered: `[T]`, the largest cosine of each with a token of a pick.
    """
    return 1.0 - float(weights / weights.sum() @ covered.clamp_min(0.0))


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

    def share(part: slice, of: torch.Tensor) -> float:
        return float(weights[part] @ of[part] / weights[part].sum()) if len(weights[part]) else 0.0

    said, covered = slice(query.asked, None), covered.clamp_min(0.0)
    more = share(said, covered) - share(slice(query.asked), covered)
    return more if share(said, named.float()) >= _NAMED else min(more, 0.0)
