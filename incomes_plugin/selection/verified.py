"""What routing names for a question and the verifier says of it.

A verification costs as much as routing among 1,000 edits, so of the edits that routing names only those are verified
that are worth it. For a question itself these are the edits whose score lies close to the best one's, and those that
cover what the best one does not: of a question about two edits each covers a half. Tokens that no candidate covers do
not count, since a question may stand behind a text that has nothing to do with it. An edit that covers next to nothing
of a question is not verified either: the verifier, which learned from the likeliest edits, may take it for an answer.
For what a pick has left open these are the edits that name some of what the pick says, or cover a good part of what is
left of the question: no other edit can be the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch

from incomes_plugin.selection.candidates import best_readable
from incomes_plugin.selection.likeness import same_tokens
from incomes_plugin.selection.onward import NAMED, Query, shares
from incomes_plugin.selection.routing import RouteKeys, Router, distances_from_end
from incomes_plugin.selection.verifier import Verifier, verify

_COVERED = 0.5
"""A token is covered from this cosine on. This and the numbers below are measured: docs/experiments.md."""

_NOISE = 0.15
"""Cosines that differ by less say nothing."""

_MORE = 0.02
"""An edit covers what the best one does not if it has so much more of a question, as a weighted mean cosine."""

_COMMON = 0.3
"""Cosine that tokens of two texts may have which have nothing to do with each other."""

_LEFT = 0.4
"""Weighted mean cosine from which an edit covers a good part of what is left of a question."""

FeaturesOf = Callable[[int], torch.Tensor]


@dataclass(frozen=True)
class Verified:
    """What routing names for a question and what the verifier says of it.

    Attributes:
        weights: `[T]`, of the question's tokens.
        edits: rows of the candidates, best first.
        similar: `[T, candidates]`, the largest cosine of each of the question's tokens with theirs.
        features: `[E, F]` of each candidate, on the question's device.
        logits: `[candidates]` float32.
    """

    weights: torch.Tensor
    edits: tuple[int, ...]
    similar: torch.Tensor
    features: Sequence[torch.Tensor]
    logits: torch.Tensor


def verified(
    router: Router, verifier: Verifier, query: Query, table: RouteKeys, features_of: FeaturesOf, count: int,
    may_read: Callable[[int], bool] = lambda _: True, passed: Collection[int] = (), margin: float = 2.0,
    cover: float = 0.0,
) -> Verified | None:  # fmt: skip
    """Those of the `count` best edits outside `passed` that are worth it, for a question or for what `onward` makes of
    one; None where there is none. See `RoutingRules` for `margin` and `cover`, which count for a question only."""
    question = query.features
    if not len(question):
        return None
    weights = router.weights(question, distances_from_end(len(question), question.device))
    directions = router.directions(question)
    rows, similar = best_readable(weights, directions, table, count + len(passed), may_read)
    places = [place for place, edit in enumerate(rows.tolist()) if edit not in passed][:count]
    if not places:
        return None
    rows, similar = rows[places], similar[:, places]
    if query.asked == len(question):
        enough = coverage(weights, similar) >= cover
        kept = [place for place in near_best(weights, similar, margin) if enough[place]]
        features = [features_of(int(rows[place])).to(question) for place in kept]
    else:
        found = [features_of(edit).to(question) for edit in rows.tolist()]
        kept = may_follow(query, weights, similar, found, verifier.num_parts)
        features = [found[place] for place in kept]
    if not kept:
        return None
    logits = verify(router, verifier, question, weights, directions, features)
    return Verified(weights, tuple(rows[kept].tolist()), similar[:, kept], features, logits)


def coverage(weights: torch.Tensor, similar: torch.Tensor) -> torch.Tensor:
    """How much of a question each candidate covers: the sum over tokens t of w_t max(0, c_t - `_COMMON`), `[C]`.

    It is a sum and no mean: a text in front of a question, or a second question beside it, takes nothing away.

    Args:
        weights: `[T]`, w of the question's tokens.
        similar: `[T, C]`, c, the largest cosine of each with every candidate's tokens.
    """
    return weights @ (similar - _COMMON).clamp_min(0.0)


def near_best(weights: torch.Tensor, similar: torch.Tensor, margin: float) -> list[int]:
    """Candidates that are worth a verification for a question itself.

    Args:
        weights: `[T]`, of the question's tokens.
        similar: `[T, C]`, the largest cosine of each with every candidate's tokens, the best candidate first.
        margin: see `RoutingRules.margin`.
    """
    covered = similar.amax(1) >= _COVERED
    if bool(covered.any()):
        weights, similar = weights[covered], similar[covered]
    weights = weights / weights.sum()
    scores = weights @ similar
    more = weights @ (similar - similar[:, :1] - _NOISE).clamp_min(0.0)
    return ((scores >= scores.max() - margin) | (more >= _MORE)).nonzero()[:, 0].tolist()


def may_follow(
    query: Query, weights: torch.Tensor, similar: torch.Tensor, edits: Sequence[torch.Tensor], num_parts: int
) -> list[int]:
    """Candidates that are worth a verification for what a pick has left open.

    Args:
        query: what is left of the question, and what the pick says.
        weights, similar: of the query's tokens, as in `near_best`.
        edits: features `[E, F]` of the candidates.
        num_parts: feature layers.
    """
    same = same_tokens(query.features[None], torch.cat(list(edits))[None], num_parts)[0]
    named = torch.stack([part.any(1) for part in same.split([len(edit) for edit in edits], 1)], 1)
    left, _ = shares(query, weights, similar.clamp_min(0.0))
    _, said = shares(query, weights, named.float())
    return ((left >= _LEFT) | (said >= NAMED)).nonzero()[:, 0].tolist()
