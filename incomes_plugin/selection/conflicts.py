"""Does a new edit contradict another one, or say the same? Asked for the few edits that routing finds nearest to it.

in: features of the new edit's tokens and of theirs; out: for each `contradiction`, `duplicate` or nothing, and how sure

The verifier is asked in both directions, each edit once in the place of the question, whole and up to its last words
that the other lacks; how the words of the two match says the rest: a value differs at one place, behind a subject that
both have. A small net weighs these numbers. It is part of the edit adapter, because it is fitted to what this adapter's
router and verifier say of published and invented edits (`lab/adapt/judging.py`). `pool/comparing.py` asks it about new
edits, and `picks.py` about picks of which a later one may replace an older one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from incomes_plugin.selection.candidates import best_edits
from incomes_plugin.selection.edit_pairs import NUMBERS, EditPair, verify_pairs, weights_of
from incomes_plugin.selection.likeness import same_tokens
from incomes_plugin.selection.routing import QUESTION_TOKENS, RouteKeys, Router, similarities
from incomes_plugin.selection.verifier import Verifier, verify

CANDIDATES = 8
"""Edits that a new one is compared with closely."""

SEARCHED = 6
"""Tokens of a new edit, the heaviest, by which those candidates are found. Measured: the same recall as with all."""

STRANGE = 0.85
"""Share of a new edit's weight in tokens that the other lacks, from which on they are not in conflict. No conflict of
the dev split lies above; of 1,494 mere neighbours, three in ten."""

UNLIKELY = -9.0
"""Verifier's logit below which they are not. Of 1,922 conflicts of the dev split fewer than one in a hundred lies below
-8."""

HIDDEN = 16
"""Units of the net."""

ConflictVerdict = tuple[Literal["contradiction", "duplicate"], float]


class Judge(nn.Module):
    """The net: `out · tanh(hidden · x + hidden_bias) + out_bias` of a pair's numbers x.

    Attributes:
        hidden: `[HIDDEN, NUMBERS]`; `hidden_bias`: `[HIDDEN]`.
        out: `[2, HIDDEN]`: logits of a conflict, and of its being a duplicate; `out_bias`: `[2]`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Parameter(torch.randn(HIDDEN, NUMBERS) / NUMBERS**0.5)
        self.hidden_bias = nn.Parameter(torch.zeros(HIDDEN))
        self.out = nn.Parameter(torch.randn(2, HIDDEN) / HIDDEN**0.5)
        self.out_bias = nn.Parameter(torch.zeros(2))

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        """`[n, 2]` of pairs' numbers `[n, NUMBERS]`; the same whichever edit of a pair is the new one."""
        numbers = numbers.to(self.hidden)
        both = torch.stack([numbers, swapped(numbers)])
        return (torch.tanh(both @ self.hidden.T + self.hidden_bias) @ self.out.T + self.out_bias).mean(0)


def swapped(numbers: torch.Tensor) -> torch.Tensor:
    """The numbers of the same pairs with the other edit as the new one."""
    sides = numbers[:, : NUMBERS - 2].unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
    return torch.cat([sides, numbers[:, -2:]], -1)


@dataclass(frozen=True)
class Sought:
    """The heaviest tokens of a new edit as routing sees them: weights `[t]`, directions `[t, R]`."""

    weights: torch.Tensor
    directions: torch.Tensor

    @classmethod
    def of(cls, router: Router, features: torch.Tensor) -> Sought:
        """Of features `[T, F]`."""
        features = features[-QUESTION_TOKENS:]
        weights = weights_of(router, features)
        heaviest = weights.topk(min(SEARCHED, len(weights))).indices
        return cls(weights[heaviest], router.directions(features[heaviest]))


def nearest(sought: Sequence[Sought], table: RouteKeys, count: int) -> list[list[int]]:
    """For each the edits of largest score, best first. Without an index the route keys are read once for all."""
    if table.index is not None and table.index.rows is not None:
        return [best_edits(one.weights, one.directions, table, count)[0].tolist() for one in sought]
    similar = similarities(torch.cat([one.directions for one in sought]), table)
    parts = similar.split([len(one.weights) for one in sought])
    count = min(count, table.num_edits)
    return [(one.weights @ part).topk(count).indices.tolist() for one, part in zip(sought, parts, strict=True)]


def judge(
    net: Judge, router: Router, verifier: Verifier, new: torch.Tensor, others: Sequence[torch.Tensor]
) -> list[ConflictVerdict | None]:
    """One verdict for each of the others.

    Args:
        new: features `[T, F]` of the new edit.
        others: features `[E, F]` of each.
    """
    found: list[ConflictVerdict | None] = []
    for logit, says_same in conflict_logits(net, router, verifier, new, others):
        kind: Literal["contradiction", "duplicate"] = "duplicate" if says_same > 0 else "contradiction"
        found.append((kind, round(float(torch.tensor(logit).sigmoid()), 4)) if logit > 0 else None)
    return found


@torch.inference_mode()
def conflict_logits(
    net: Judge, router: Router, verifier: Verifier, new: torch.Tensor, others: Sequence[torch.Tensor]
) -> list[tuple[float, float]]:
    """For each of the others the logits of a conflict and of its being a duplicate.

    Edits that are too different have -inf, those that are the same token by token have inf.

    Args:
        new: float32 features `[T, F]` of the new edit.
        others: float32 features `[E, F]` of each.
    """
    found = [(-math.inf, -math.inf)] * len(others)
    places, numbers = numbers_of(router, verifier, new, others)
    for place, (logit, says_same) in zip(places, net(numbers).tolist(), strict=True):
        found[place] = (logit, says_same)
    for place, other in enumerate(others):
        if _is_same(new, other, verifier):
            found[place] = (math.inf, math.inf)
    return found


@torch.inference_mode()
def numbers_of(
    router: Router, verifier: Verifier, new: torch.Tensor, others: Sequence[torch.Tensor]
) -> tuple[list[int], torch.Tensor]:
    """Places of those of the others that may be in conflict with the new edit, and the numbers `[n, NUMBERS]` about
    each pair."""
    if not others:
        return [], torch.empty(0, NUMBERS)
    new = new[-QUESTION_TOKENS:]
    weights = weights_of(router, new)
    share = weights / weights.sum()
    matches = {place: same_tokens(new[None], other[None], verifier.num_parts)[0] for place, other in enumerate(others)}
    alike = [place for place, same in matches.items() if float(share[~same.any(1)].sum()) < STRANGE]
    if not alike:
        return [], torch.empty(0, NUMBERS)
    logits = verify(router, verifier, new, weights, router.directions(new), [others[place] for place in alike]).tolist()
    likely = {place: logit for place, logit in zip(alike, logits, strict=True) if logit > UNLIKELY}
    if not likely:
        return [], torch.empty(0, NUMBERS)
    pairs = [EditPair.of(router, verifier, new, others[place], logit) for place, logit in likely.items()]
    asked = [question for pair in pairs for question in pair.questions]
    answers = verify_pairs(router, verifier, asked).clamp(-10.0, 10.0).reshape(-1, 3).tolist()
    rows = [pair.numbers(*told) for pair, told in zip(pairs, answers, strict=True)]
    return list(likely), torch.tensor(rows).reshape(-1, NUMBERS)


def _is_same(new: torch.Tensor, other: torch.Tensor, verifier: Verifier) -> bool:
    """Token by token."""
    if len(new) != len(other):
        return False
    return bool(same_tokens(new[None], other[None], verifier.num_parts)[0].diagonal().all())
