"""The picks of a request: routing names candidates, the verifier accepts or refuses each, and of two rivals, which the
judge of conflicts knows, the newer one stays.

in: a question's features and the edits it may see; out: the edits that apply, or none. Reading uses nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from incomes_plugin.selection.candidates import best_edits
from incomes_plugin.selection.conflicts import Judge, conflict_logits
from incomes_plugin.selection.onward import onward, open_share
from incomes_plugin.selection.routing import QUESTION_TOKENS, RouteKeys, Router, distances_from_end
from incomes_plugin.selection.verifier import Verifier, verify

CROWD = 1000
"""Number of edits for which the threshold is given; see `RoutingRules.growth`."""


@dataclass(frozen=True)
class RoutingRules:
    """Fixed numbers of routing, calibrated after training.

    Attributes:
        candidates: edits that are verified.
        most_picks: edits that a request reads at most.
        threshold: verifier's logit from which an edit applies, among `CROWD` edits.
        growth: what is added to the threshold each time the number of edits grows e-fold beyond `CROWD`: among more
            wrong edits the best one gets a higher logit.
        rivalry: an accepted edit is dropped if a later accepted one covers the question so well that the older one adds
            less than this (weighted mean cosine), and the judge says that the two are in conflict: then the later one
            is a new answer to the same question. 0 = never.
        conflict: logit of the judge from which two picks count as rivals; below 0, from which a new edit is in conflict
            with another, as here both already answer the question.
        open: the question is asked again with what its picks say if they leave at least this share of it open, see
            `onward.py`; above 1 = never.
        onward: verifier's logit from which an edit that is found in this way applies.
    """

    candidates: int = 8
    most_picks: int = 4
    threshold: float = 0.0
    growth: float = 0.0
    rivalry: float = 0.0
    conflict: float = -1.0
    open: float = 2.0
    onward: float = 0.0

    def threshold_among(self, num_edits: int) -> float:
        """The threshold among `num_edits` edits."""
        return self.threshold + self.growth * math.log(max(1.0, num_edits / CROWD))


@dataclass(frozen=True)
class Picking:
    """What picks are made with: the trained parts and the rules of one adapter."""

    router: Router
    verifier: Verifier
    judge: Judge
    rules: RoutingRules


@dataclass(frozen=True)
class Picks:
    """What a request reads: the likeliest first, then the edits that these led to.

    Attributes:
        edits: row of each picked edit.
        bias: `[k]` float32, the logarithm of the probability that each applies: b of reading.
        candidates: rows of the edits verified for the question itself, best first.
        logits: `[candidates]` float32, the verifier's.
    """

    edits: tuple[int, ...]
    bias: torch.Tensor
    candidates: tuple[int, ...]
    logits: torch.Tensor

    def on_host(self) -> Picks:
        """The same in host memory, for other processes: a tensor on a device would arrive on the sender's."""
        return replace(self, bias=self.bias.cpu(), logits=self.logits.cpu())

    @classmethod
    def none(cls) -> Picks:
        """Nothing to read."""
        return cls((), torch.empty(0), (), torch.empty(0))


FeaturesOf = Callable[[int], torch.Tensor]


@torch.inference_mode()
def choose(
    picking: Picking,
    question: torch.Tensor,
    table: RouteKeys,
    features_of: FeaturesOf,
    age_of: Callable[[int], int],
    may_read: Callable[[int], bool] = lambda _: True,
) -> Picks:
    """Pick edits for one question.

    Args:
        question: `[T, F]` float32 features of the question's tokens, T >= 1; only the last QUESTION_TOKENS count.
        table: route keys of the edits it may see.
        features_of: features `[E, F]` of the edit in a row of the table.
        age_of: of that edit; of two rivals the one with the larger number is the later.
        may_read: of that edit; one that may not be read is passed over, as if it were not in the table.
    """
    if not table.num_edits:
        return Picks.none()
    router, verifier, rules = picking.router, picking.verifier, picking.rules
    question = question[-QUESTION_TOKENS:].float()
    weights = router.weights(question, distances_from_end(len(question), question.device))
    found, similar = _best_readable(weights, router.directions(question), table, rules.candidates, may_read)
    candidates = found.tolist()
    if not candidates:
        return Picks.none()
    features = [features_of(edit).to(question) for edit in candidates]
    logits = verify(router, verifier, question, weights, features)
    order = logits.argsort(descending=True, stable=True).tolist()
    least = rules.threshold_among(table.num_edits)
    accepted = [place for place in order if logits[place] >= least]
    ages = [age_of(edit) for edit in candidates]
    stay = _without_rivals(picking, accepted, similar, weights, ages, features)
    replaced = {candidates[place] for place in accepted if place not in stay}
    kept = stay[: rules.most_picks]
    picked = {candidates[place]: logits[place] for place in kept}
    if picked and open_share(weights, similar[:, kept].amax(1)) >= rules.open:
        _go_on(picking, question, table, features_of, picked, replaced, may_read)
    bias = F.logsigmoid(torch.stack(list(picked.values()))) if picked else logits[:0]
    return Picks(tuple(picked), bias, tuple(candidates), logits)


def _go_on(
    picking: Picking, question: torch.Tensor, table: RouteKeys, features_of: FeaturesOf,
    picked: dict[int, torch.Tensor], replaced: set[int], may_read: Callable[[int], bool],
) -> None:  # fmt: skip
    """Add the edits that the best pick leads to, one after the other, each by what the one before says. What a later
    pick has replaced does not come back."""
    router, verifier, rules = picking.router, picking.verifier, picking.rules
    lead = next(iter(picked))
    while len(picked) < rules.most_picks:
        question = onward(question, features_of(lead), verifier.num_parts)
        passed = picked.keys() | replaced
        found = best_onward(router, verifier, question, table, features_of, rules.candidates, passed, may_read)
        if found is None or found[1] < rules.onward:
            return
        lead, logit = found
        picked[lead] = logit


def best_onward(
    router: Router, verifier: Verifier, question: torch.Tensor, table: RouteKeys, features_of: FeaturesOf, count: int,
    passed: Collection[int], may_read: Callable[[int], bool] = lambda _: True,
) -> tuple[int, torch.Tensor] | None:  # fmt: skip
    """The edit outside `passed` that answers what is left open, with the verifier's logit; None where there is none.

    Args:
        question: `[T, F]`, of `onward`.
        count: edits that are verified.
    """
    if not len(question):
        return None
    weights = router.weights(question, distances_from_end(len(question), question.device))
    rows, _ = _best_readable(weights, router.directions(question), table, count + len(passed), may_read)
    others = [edit for edit in rows.tolist() if edit not in passed][:count]
    if not others:
        return None
    logits = verify(router, verifier, question, weights, [features_of(edit) for edit in others])
    best = int(logits.argmax())
    return others[best], logits[best]


def _best_readable(
    weights: torch.Tensor, directions: torch.Tensor, table: RouteKeys, count: int, may_read: Callable[[int], bool]
) -> tuple[torch.Tensor, torch.Tensor]:
    """`best_edits` of those that may be read. While some of the best may not, it looks further."""
    asked = count
    while True:
        found, similar = best_edits(weights, directions, table, asked)
        kept = [place for place, edit in enumerate(found.tolist()) if may_read(edit)][:count]
        if len(kept) == len(found):
            return found, similar
        if len(kept) == count or len(found) < asked:
            return found[kept], similar[:, kept]
        asked *= 4


def added(weights: torch.Tensor, older: torch.Tensor, later: torch.Tensor) -> float:
    """How much better two edits together cover a question than the later one alone, as a weighted mean cosine.

    Args:
        weights: `[T]`, w.
        older, later: `[T]`, the largest cosine of each of the question's tokens with the edit's.
    """
    return float(weights / weights.sum() @ (torch.maximum(later, older) - later))


def _without_rivals(
    picking: Picking, accepted: list[int], similar: torch.Tensor, weights: torch.Tensor, ages: Sequence[int],
    features: Sequence[torch.Tensor],
) -> list[int]:  # fmt: skip
    """The accepted candidates without those that a later one replaces; see `RoutingRules.rivalry`.

    The judge is asked only about those that cover the same part of the question.
    """
    rules = picking.rules
    if not rules.rivalry:
        return accepted  # what an older one adds may round to less than 0
    replaced: set[int] = set()
    for later in accepted:
        older = [
            place for place in accepted
            if ages[later] > ages[place] and added(weights, similar[:, place], similar[:, later]) < rules.rivalry
        ]  # fmt: skip
        if not older:
            continue
        found = conflict_logits(
            picking.judge, picking.router, picking.verifier, features[later], [features[place] for place in older]
        )
        replaced |= {place for place, (logit, _) in zip(older, found, strict=True) if logit > rules.conflict}
    return [place for place in accepted if place not in replaced]
