"""The picks of a request: routing names candidates, the verifier accepts or refuses each, and of two rivals, which the
judge of conflicts knows, the newer one stays.

in: a question's features and the edits it may see; out: the edits that apply, or none. Reading uses nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from incomes_plugin.selection.conflicts import Judge, conflict_logits
from incomes_plugin.selection.likeness import same_tokens
from incomes_plugin.selection.onward import Query, beginning, led_to, left_open, onward
from incomes_plugin.selection.routing import RouteKeys, Router, distances_from_end
from incomes_plugin.selection.rules import RoutingRules
from incomes_plugin.selection.verified import FeaturesOf, Verified, verified
from incomes_plugin.selection.verifier import Verifier


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
        bias: `[k]` float32, b of reading: the logarithm of the probability that each applies, less `RoutingRules.led`
            where it has led to another one.
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


@torch.inference_mode()
def choose(
    picking: Picking,
    question: torch.Tensor,
    table: RouteKeys,
    features_of: FeaturesOf,
    age_of: Callable[[int], int],
    may_read: Callable[[int], bool] = lambda _: True,
    lines: Sequence[int] = (),
) -> Picks:
    """Pick edits for one question.

    Args:
        question: `[T, F]` float32 features of the question's tokens, 1 <= T <= QUESTION_TOKENS.
        table: route keys of the edits it may see.
        features_of: features `[E, F]` of the edit in a row of the table.
        age_of: of that edit; of two rivals the one with the larger number is the later.
        may_read: of that edit; one that may not be read is passed over, as if it were not in the table.
        lines: places in the question at which a further line begins.
    """
    if not table.num_edits:
        return Picks.none()
    rules, query = picking.rules, Query.of(question)
    found = verified(
        picking.router, picking.verifier, query, table, features_of, rules.candidates, may_read, margin=rules.margin,
        cover=rules.cover,
    )  # fmt: skip
    if found is None:
        return Picks.none()
    stay, replaced = _settled(picking, found, rules.threshold_among(table.num_edits), age_of)
    kept = stay[: rules.most_picks]
    picked = {found.edits[place]: found.logits[place] for place in kept}
    led: set[int] = set()
    if not picked:
        return Picks((), found.logits[:0], found.edits, found.logits)
    covered = found.similar[:, kept].amax(1)
    first = beginning(found.weights, covered, lines)
    opened = left_open(found.weights[first:], covered[first:]) >= rules.open
    if opened or len(picked) > 1:
        led = _go_on(picking, query.since(first), table, features_of, age_of, picked, replaced, may_read, opened)
    less = torch.tensor([rules.led * (edit in led) for edit in picked])
    bias = F.logsigmoid(torch.stack(list(picked.values()))) - less.to(found.logits)
    return Picks(tuple(picked), bias, found.edits, found.logits)


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
    picking: Picking, query: Query, table: RouteKeys, features_of: FeaturesOf, age_of: Callable[[int], int],
    picked: dict[int, torch.Tensor], replaced: set[int], may_read: Callable[[int], bool], opened: bool,
) -> set[int]:  # fmt: skip
    """Add the edits that the best pick leads to, one after the other, each by what the one before says. Here too the
    later of two rivals is picked, and what a later one has replaced does not come back. Some may be picked already.

    Args:
        opened: whether to look for edits that are not picked yet.

    Returns:
        The edits that have led to another one.
    """
    rules, lead = picking.rules, next(iter(picked))
    passed, led = {lead}, set[int]()
    while True:
        query = onward(query, features_of(lead), picking.verifier.num_parts)
        following = _following(picking, query, features_of, [edit for edit in picked if edit not in passed])
        if following is None and opened and len(picked) < rules.most_picks:
            found = verified(
                picking.router, picking.verifier, query, table, features_of, rules.candidates, may_read,
                picked.keys() | replaced,
            )  # fmt: skip
            stay, gone = _settled(picking, found, rules.onward, age_of) if found else ([], set[int]())
            replaced |= gone
            if found and stay:
                edit, place = found.edits[stay[0]], stay[0]
                named = _named(picking, query, found.features[place])
                following = edit, led_to(query, found.weights, found.similar[:, place], named)
                picked[edit] = found.logits[place]
        if following is None:
            return led
        if following[1] > 0.0:
            led.add(lead)
        lead = following[0]
        passed.add(lead)


def _following(
    picking: Picking, query: Query, features_of: FeaturesOf, others: Sequence[int]
) -> tuple[int, float] | None:
    """That of some other picks to which the pick behind a query has led, and its `led_to`; None where it has led to
    none of them."""
    if not others or not len(query.features):
        return None
    router = picking.router
    weights = router.weights(query.features, distances_from_end(len(query.features), query.features.device))
    directions = router.directions(query.features)
    features = [features_of(edit).to(query.features) for edit in others]
    found = [
        led_to(query, weights, (directions @ router.route_keys(own).T).amax(1), _named(picking, query, own))
        for own in features
    ]
    most = max(found)
    return (others[found.index(most)], most) if most > 0.0 else None


def _named(picking: Picking, query: Query, edit: torch.Tensor) -> torch.Tensor:
    return same_tokens(query.features[None], edit[None], picking.verifier.num_parts)[0].any(1)


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
