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

from incomes_plugin.selection.candidates import best_readable
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
        conflict: logit of the judge from which two picks count as rivals; a new edit is in conflict with another from
            0 on.
        open: the question is asked again with what its picks say if they leave at least this share of it open, see
            `onward.py`; above 1 = never.
        onward: verifier's logit from which an edit that is found in this way applies.
    """

    candidates: int = 8
    most_picks: int = 4
    threshold: float = 0.0
    growth: float = 0.0
    rivalry: float = 0.0
    conflict: float = 0.0
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
    rules, question = picking.rules, question[-QUESTION_TOKENS:].float()
    found = verified(picking.router, picking.verifier, question, table, features_of, rules.candidates, may_read)
    if found is None:
        return Picks.none()
    stay, replaced = _settled(picking, found, rules.threshold_among(table.num_edits), age_of)
    kept = stay[: rules.most_picks]
    picked = {found.edits[place]: found.logits[place] for place in kept}
    if picked and open_share(found.weights, found.similar[:, kept].amax(1)) >= rules.open:
        _go_on(picking, question, table, features_of, age_of, picked, replaced, may_read)
    bias = F.logsigmoid(torch.stack(list(picked.values()))) if picked else found.logits[:0]
    return Picks(tuple(picked), bias, found.edits, found.logits)


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
    router: Router, verifier: Verifier, question: torch.Tensor, table: RouteKeys, features_of: FeaturesOf, count: int,
    may_read: Callable[[int], bool] = lambda _: True, passed: Collection[int] = (),
) -> Verified | None:  # fmt: skip
    """The `count` best edits outside `passed` for a question `[T, F]`, or for what `onward` makes of one; None where
    there is none."""
    if not len(question):
        return None
    weights = router.weights(question, distances_from_end(len(question), question.device))
    rows, similar = best_readable(weights, router.directions(question), table, count + len(passed), may_read)
    places = [place for place, edit in enumerate(rows.tolist()) if edit not in passed][:count]
    if not places:
        return None
    edits = tuple(rows[places].tolist())
    features = [features_of(edit).to(question) for edit in edits]
    return Verified(weights, edits, similar[:, places], features, verify(router, verifier, question, weights, features))


def _settled(
    picking: Picking, found: Verified, least: float, age_of: Callable[[int], int]
) -> tuple[list[int], set[int]]:
    """Places of the candidates that apply and stay, the likeliest first; and the edits that later ones replace.

    Args:
        least: the verifier's logit from which one applies.
    """
    order = found.logits.argsort(descending=True, stable=True).tolist()
    accepted = [place for place in order if found.logits[place] >= least]
    stay = _without_rivals(picking, found, accepted, [age_of(edit) for edit in found.edits])
    return stay, {found.edits[place] for place in accepted if place not in stay}


def _go_on(
    picking: Picking, question: torch.Tensor, table: RouteKeys, features_of: FeaturesOf, age_of: Callable[[int], int],
    picked: dict[int, torch.Tensor], replaced: set[int], may_read: Callable[[int], bool],
) -> None:  # fmt: skip
    """Add the edits that the best pick leads to, one after the other, each by what the one before says. Here too the
    later of two rivals is picked, and what a later one has replaced does not come back."""
    rules, lead = picking.rules, next(iter(picked))
    while len(picked) < rules.most_picks:
        question = onward(question, features_of(lead), picking.verifier.num_parts)
        found = verified(
            picking.router, picking.verifier, question, table, features_of, rules.candidates, may_read,
            picked.keys() | replaced,
        )  # fmt: skip
        if found is None:
            return
        stay, gone = _settled(picking, found, rules.onward, age_of)
        if not stay:
            return
        replaced |= gone
        lead = found.edits[stay[0]]
        picked[lead] = found.logits[stay[0]]


def added(weights: torch.Tensor, older: torch.Tensor, later: torch.Tensor) -> float:
    """How much better two edits together cover a question than the later one alone, as a weighted mean cosine.

    Args:
        weights: `[T]`, w.
        older, later: `[T]`, the largest cosine of each of the question's tokens with the edit's.
    """
    return float(weights / weights.sum() @ (torch.maximum(later, older) - later))


def _without_rivals(picking: Picking, found: Verified, accepted: list[int], ages: Sequence[int]) -> list[int]:
    """The accepted candidates without those that a later one replaces; see `RoutingRules.rivalry`.

    The judge is asked only about those that cover the same part of the question.
    """
    rules, similar, features = picking.rules, found.similar, found.features
    if not rules.rivalry:
        return accepted  # what an older one adds may round to less than 0
    replaced: set[int] = set()
    for later in accepted:
        older = [
            place for place in accepted
            if ages[later] > ages[place] and added(found.weights, similar[:, place], similar[:, later]) < rules.rivalry
        ]  # fmt: skip
        if not older:
            continue
        told = conflict_logits(
            picking.judge, picking.router, picking.verifier, features[later], [features[place] for place in older]
        )
        replaced |= {place for place, (logit, _) in zip(older, told, strict=True) if logit > rules.conflict}
    return [place for place in accepted if place not in replaced]
