"""From one edit on to the next: what is left open, when it is asked, and what it finds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from incomes_plugin.selection import conflicts
from incomes_plugin.selection.conflicts import Judge
from incomes_plugin.selection.onward import onward, open_share
from incomes_plugin.selection.picks import Picking, RoutingRules, choose
from incomes_plugin.selection.routing import RouteKeys, Router, start_from
from tests.incomes_plugin.selection.test_picks import always

DIM, PARTS = 16, 2
WORDS = ["what", "home", "town", "of", "founder", "Xcor", "is", "Ann", "Zed", "Quill", "mayor", "Bo", "."]


class Matching(torch.nn.Module):
    """A verifier that accepts an edit (+1) of which the question has every word but little ones and the last."""

    num_parts = PARTS

    def forward(self, question, weights, question_mask, edit, edit_mask, cosines) -> torch.Tensor:
        little = (edit[:, :, None] == say("of is")).all(-1).any(-1)
        found = (cosines > 0.99).any(1) | little | ~edit_mask
        last = edit_mask.sum(1) - 1
        found[torch.arange(len(edit)), last] = True
        return torch.where(found.all(1), 1.0, -1.0)


@pytest.fixture
def router() -> Router:
    torch.manual_seed(0)
    router = Router(DIM, DIM, 6).eval().requires_grad_(False)
    start_from(router, torch.randn(400, DIM))
    return router


def say(text: str) -> torch.Tensor:
    """Features of words, each always the same."""
    words = torch.randn(len(WORDS), DIM, generator=torch.Generator().manual_seed(1))
    return words[[WORDS.index(word) for word in text.split()]]


EDITS = ["founder of Xcor is Ann", "home town of Ann is Quill", "mayor of Ann is Zed", "founder of Bo is Zed"]
CHAIN = "what is home town of founder of Xcor"


def picks(
    router: Router, rules: RoutingRules, question: str, barred: frozenset[int] = frozenset(),
    texts: Sequence[str] = EDITS, judge: Judge | None = None,
) -> tuple[int, ...]:  # fmt: skip
    edits = [say(text) for text in texts]
    own = [router.route_keys(edit) for edit in edits]
    keys = torch.stack([torch.cat([k, k[-1:].expand(6 - len(k), -1)]) for k in own])
    table = RouteKeys(keys, None, len(edits))
    picking = Picking(router, Matching(), judge or Judge(), rules)
    return choose(
        picking, say(question), table, edits.__getitem__, lambda row: row, lambda row: row not in barred
    ).edits  # fmt: skip


def test_what_is_left_open_are_the_tokens_that_the_other_lacks() -> None:
    rest = onward(say(CHAIN), say(EDITS[0]), PARTS)
    torch.testing.assert_close(rest, say("what home town Ann"))
    assert not len(onward(say("founder of"), say("of founder"), PARTS))


def test_an_edit_leads_to_the_next_one(router: Router) -> None:
    rules = RoutingRules(candidates=3, threshold=0.0, open=0.1)
    assert picks(router, RoutingRules(candidates=3), CHAIN) == (0,)
    assert picks(router, rules, CHAIN) == (0, 1)


def test_an_edit_that_may_not_be_read_is_no_step_on_the_way(router: Router) -> None:
    rules = RoutingRules(candidates=3, threshold=0.0, open=0.1)
    assert picks(router, rules, CHAIN, frozenset({1})) == (0,)
    assert picks(router, rules, CHAIN, frozenset({0})) == ()


def test_what_a_later_edit_replaced_is_no_step_on_the_way(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conflicts, "UNLIKELY", -100.0)
    texts = ["founder of Xcor is Bo", *EDITS[:2]]
    rules = RoutingRules(threshold=0.0, open=0.1, onward=-2.0)  # on the way anything is taken
    assert set(picks(router, rules, CHAIN, texts=texts)) == {0, 1, 2}
    assert picks(router, replace(rules, rivalry=0.2), CHAIN, texts=texts, judge=always()) == (1, 2)


def test_of_two_rivals_on_the_way_the_later_one_is_picked(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conflicts, "UNLIKELY", -100.0)
    towns = [f"home town of Ann is {town}" for town in ("Quill", "Zed")]
    rules = RoutingRules(threshold=0.0, open=0.1, rivalry=0.2)
    without = set()
    for ordered in (towns, towns[::-1]):
        texts = [EDITS[0], *ordered]
        assert picks(router, rules, CHAIN, texts=texts, judge=always()) == (0, 2)
        without.add(texts[picks(router, rules, CHAIN, texts=texts, judge=always(-9.0))[1]])
    assert len(without) == 1, "where they are no rivals, their age decides nothing"


def test_a_question_that_its_pick_covers_is_not_asked_again(router: Router) -> None:
    direct = "founder of Xcor is"
    assert picks(router, RoutingRules(open=0.1), direct) == (0,)
    asked_on = picks(router, RoutingRules(open=0.0), direct)  # asked on, it is refused
    assert asked_on == (0,)


def test_the_rules_bound_what_is_picked_on_the_way(router: Router) -> None:
    assert picks(router, RoutingRules(open=0.1, onward=1.5), CHAIN) == (0,)
    assert picks(router, RoutingRules(open=0.1, most_picks=1), CHAIN) == (0,)


def test_open_share_is_what_no_pick_covers() -> None:
    weights = torch.tensor([1.0, 3.0])
    assert open_share(weights, torch.tensor([1.0, 0.0])) == pytest.approx(0.75)
    assert open_share(weights, torch.tensor([1.0, -0.5])) == pytest.approx(0.75)
    assert math.isclose(open_share(weights, torch.ones(2)), 0.0, abs_tol=1e-6)
