"""Thresholds of routing, read off from questions and prompts that training did not see, at several numbers of edits.

The threshold minimises a sum of two shares: right questions that it refuses, and near misses that pass it, which count
twice: an answer that an edit changes without being asked is the worse of the two. It is raised if more than a given
share of the prompts that no edit answers would pass, and lowered if it would refuse more right questions than allowed.
Among more wrong edits the best one has a higher logit, so the threshold is found for several numbers of edits N, and
the slope of a line over log N is kept (`RoutingRules.growth`).

What an edit must cover of a question (`RoutingRules.cover`) comes first: all but a small share of the right questions
are covered that well, and most of the prompts that no edit answers and the verifier takes for questions are not. The
threshold then has to refuse only the others.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from incomes_plugin.lab.adapt.features import Ragged
from incomes_plugin.lab.adapt.verifying import batch_logits, nearest_edits, route_table
from incomes_plugin.selection.routing import QUESTION_TOKENS, Router, distances_from_end
from incomes_plugin.selection.rules import CROWD, RoutingRules
from incomes_plugin.selection.verified import coverage
from incomes_plugin.selection.verifier import Verifier

_PAIRS_AT_ONCE = 64


@dataclass(frozen=True)
class HeldOut:
    """The data of calibration, none of which was used in training.

    Attributes:
        edits: features of the pool's edits.
        subjects: what each is about.
        questions, owners: right questions and their edits.
        refused: prompts that no edit answers, near misses left out.
        near, near_edits: near misses, and the edit that each is close to.
    """

    edits: Ragged
    subjects: Sequence[str]
    questions: Ragged
    owners: Sequence[int]
    refused: Ragged
    near: Ragged
    near_edits: Sequence[int]


@dataclass(frozen=True)
class Shares:
    """What a threshold may cost.

    Attributes:
        harm: how much a near miss that passes counts beside a right question that is refused.
        fire: share of the prompts without an edit that may pick one.
        uncovered: share of the right questions that may be refused because their edit covers too little of them.
        lose: share of the others that may be refused.
        drop: share of the right edits that a later wrong one may replace, see `RoutingRules.rivalry`.
        onward: share of the questions of one edit that may pick one more, see `RoutingRules.onward`.
        tried: share of the questions that lead from one edit to the next which are asked on, see `RoutingRules.open`.
    """

    harm: float = 2.0
    fire: float = 0.005
    uncovered: float = 0.0125
    lose: float = 0.02
    drop: float = 0.0125
    onward: float = 0.02
    tried: float = 0.985


def calibrate(
    router: Router, verifier: Verifier, held: HeldOut, rules: RoutingRules, shares: Shares, *, seed: int
) -> RoutingRules:
    """Rules with cover, threshold and growth."""
    covered = _coverage(router, held, held.questions, held.owners)
    cover = round(float(covered.quantile(shares.uncovered)), 3) if len(covered) else 0.0
    rules = replace(rules, cover=cover)
    total = len(held.edits)
    sizes = [size for size in (100, 300, 1000, 3000, 10_000) if size < total] + [total]
    near = _logits(router, verifier, held, held.near, held.near_edits)
    near = near.where(_coverage(router, held, held.near, held.near_edits) >= cover, -torch.inf)
    right = _logits(router, verifier, held, held.questions, held.owners)[covered >= cover]
    found = {size: _threshold(router, verifier, held, size, rules, shares, right, near, seed) for size in sizes}
    logs = torch.tensor([math.log(size / CROWD) for size in found])
    values = torch.tensor(list(found.values()))
    growth = 0.0
    if len(found) > 1:
        centred = logs - logs.mean()
        growth = max(0.0, float((centred * values).sum() / centred.square().sum()))
    at_crowd = float(values.mean() - growth * logs.mean())
    return replace(rules, threshold=round(at_crowd, 3), growth=round(growth, 3))


@torch.inference_mode()
def _threshold(
    router: Router, verifier: Verifier, held: HeldOut, size: int, rules: RoutingRules, shares: Shares,
    right: torch.Tensor, near: torch.Tensor, seed: int,
) -> float:  # fmt: skip
    rng = random.Random(seed)
    pool = rng.sample(range(len(held.edits)), size)
    edits = Ragged.of([held.edits[i] for i in pool])
    prompts = [held.refused[i] for i in range(len(held.refused))]
    fired = torch.full((len(prompts),), -torch.inf)
    for i, rows in enumerate(nearest_edits(router, prompts, route_table(router, edits), rules.candidates)):
        verified = [edits[row] for row in rows if covers(router, prompts[i], edits[row]) >= rules.cover]
        if verified:
            fired[i] = batch_logits(router, verifier, [prompts[i]] * len(verified), verified).max()
    wanted = float(fired.quantile(1 - shares.fire, interpolation="higher"))
    if not len(right):
        return wanted
    return min(max(wanted, _balance(right, near, shares.harm)), float(right.quantile(shares.lose)))


@torch.inference_mode()
def _logits(router: Router, verifier: Verifier, held: HeldOut, questions: Ragged, edits: Sequence[int]) -> torch.Tensor:
    """The verifier's logits of questions with one edit each."""
    parts = [
        batch_logits(router, verifier, [questions[i] for i in rows], [held.edits[edits[i]] for i in rows])
        for rows in torch.arange(len(edits)).split(_PAIRS_AT_ONCE)
        if len(rows)
    ]
    return torch.cat(parts) if parts else torch.empty(0)


@torch.inference_mode()
def _coverage(router: Router, held: HeldOut, questions: Ragged, edits: Sequence[int]) -> torch.Tensor:
    """How much of each question its edit covers."""
    return torch.tensor([covers(router, questions[i], held.edits[edit]) for i, edit in enumerate(edits)])


def covers(router: Router, question: torch.Tensor, edit: torch.Tensor) -> float:
    """How much of a question with features `[T, F]` an edit with features `[E, F]` covers, see `coverage`."""
    question = question[-QUESTION_TOKENS:].float()
    similar = (router.directions(question) @ router.route_keys(edit.float()).T).amax(1, keepdim=True)
    return float(coverage(router.weights(question, distances_from_end(len(question))), similar)[0])


def _balance(right: torch.Tensor, near: torch.Tensor, harm: float) -> float:
    """The value that minimises the share of `right` below it plus `harm` times the share of `near` at or above it."""
    bounds = right.sort().values
    lost = torch.arange(len(bounds)) / len(bounds)
    taken = (near >= bounds[:, None]).float().mean(1) if len(near) else torch.zeros(len(bounds))
    return float(bounds[(lost + harm * taken).argmin()])
