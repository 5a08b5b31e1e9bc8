"""Thresholds of routing, read off from questions and prompts that training did not see, at several numbers of edits.

The threshold lets all but a given share of the prompts that no edit answers go untouched, unless that would refuse more
right questions than allowed. The best of many wrong edits grows with their number, so it is read off among different
numbers of edits and a line through log N is kept (`RoutingRules.growth`).
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from incomes_plugin.lab.adapt.features import Ragged
from incomes_plugin.lab.adapt.verifying import batch_logits, best_edits, route_table
from incomes_plugin.selection.picks import CROWD, RoutingRules
from incomes_plugin.selection.routing import Router
from incomes_plugin.selection.verifier import Verifier


@dataclass(frozen=True)
class Held:
    """What calibration looks at, all of it kept out of training.

    Attributes:
        edits: features of the pool's edits.
        questions, owners: right questions and their edits.
        refused: prompts that no edit answers, near misses left out.
    """

    edits: Ragged
    questions: Ragged
    owners: Sequence[int]
    refused: Ragged


@dataclass(frozen=True)
class Shares:
    """What a threshold may cost.

    Attributes:
        fire: share of the prompts without an edit that may pick one.
        lose: share of the right questions that may be refused for the sake of that.
    """

    fire: float = 0.005
    lose: float = 0.02


def calibrate(
    router: Router, verifier: Verifier, held: Held, rules: RoutingRules, shares: Shares, *, seed: int
) -> RoutingRules:
    """Rules with threshold and growth."""
    total = len(held.edits)
    sizes = [size for size in (100, 300, 1000, 3000, 10_000) if size < total] + [total]
    found = {size: _threshold(router, verifier, held, size, rules.candidates, shares, seed) for size in sizes}
    logs = torch.tensor([math.log(size / CROWD) for size in found])
    values = torch.tensor(list(found.values()))
    growth = 0.0
    if len(found) > 1:
        centred = logs - logs.mean()
        growth = max(0.0, float((centred * values).sum() / centred.square().sum()))
    at_crowd = float(values.mean() - growth * logs.mean())
    return RoutingRules(rules.candidates, rules.most_picks, round(at_crowd, 3), round(growth, 3), rules.rivalry)


@torch.inference_mode()
def _threshold(
    router: Router, verifier: Verifier, held: Held, size: int, candidates: int, shares: Shares, seed: int
) -> float:
    rng = random.Random(seed)
    pool = rng.sample(range(len(held.edits)), size)
    edits = Ragged.of([held.edits[i] for i in pool])
    table = route_table(router, edits)
    found = [best_edits(router, held.refused[i], table, candidates) for i in range(len(held.refused))]
    fired = torch.tensor([max_logit(router, verifier, held.refused[i], edits, rows) for i, rows in enumerate(found)])
    place = {edit: row for row, edit in enumerate(pool)}
    asked = [i for i, owner in enumerate(held.owners) if owner in place]
    right = torch.tensor([
        max_logit(router, verifier, held.questions[i], edits, [place[held.owners[i]]]) for i in asked
    ])  # fmt: skip
    wanted = float(fired.quantile(1 - shares.fire))
    return min(wanted, float(right.quantile(shares.lose))) if len(right) else wanted


def max_logit(router: Router, verifier: Verifier, question: torch.Tensor, edits: Ragged, rows: Sequence[int]) -> float:
    """The verifier's largest logit among some edits."""
    return float(batch_logits(router, verifier, [question] * len(rows), [edits[row] for row in rows]).max())
