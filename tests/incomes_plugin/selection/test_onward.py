"""From one edit on to the next: what is left open, when it is asked, and what it finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from incomes_plugin.selection import conflicts
from incomes_plugin.selection.conflicts import Judge
from incomes_plugin.selection.onward import Query, beginning, led_to, left_open, onward
from incomes_plugin.selection.picks import Picking, Picks, choose
from incomes_plugin.selection.routing import RouteKeys, Router, start_from
from incomes_plugin.selection.rules import RoutingRules
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


def picks(router: Router, rules: RoutingRules, question: str, **more: Any) -> tuple[int, ...]:
    return chosen(router, rules, question, **more).edits


def chosen(
    router: Router, rules: RoutingRules, question: str, barred: frozenset[int] = frozenset(),
    texts: Sequence[str] = EDITS, judge: Judge | None = None, lines: Sequence[int] = (),
) -> Picks:  # fmt: skip
    edits = [say(text) for text in texts]
    own = [router.route_keys(edit) for edit in edits]
    keys = torch.stack([torch.cat([k, k[-1:].expand(6 - len(k), -1)]) for k in own])
    table = RouteKeys(keys, None, len(edits))
    picking = Picking(router, Matching(), judge or Judge(), rules)
    return choose(
        picking, say(question), table, edits.__getitem__, lambda row: row, lambda row: row not in barred, lines
    )


def test_what_is_left_open_are_the_tokens_that_the_other_lacks() -> None:
    rest = onward(Query.of(say(CHAIN)), say(EDITS[0]), PARTS)
    torch.testing.assert_close(rest.features, say("what home town Ann"))
    assert rest.asked == 3
    assert not len(onward(Query.of(say("founder of")), say("of founder"), PARTS).features)


def test_what_an_earlier_pick_said_is_not_asked_for_again() -> None:
    first = onward(Query.of(say("what mayor of home town of founder of Xcor")), say(EDITS[0]), PARTS)
    torch.testing.assert_close(first.features, say("what mayor home town is Ann"))
    second = onward(first, say(EDITS[1]), PARTS)
    torch.testing.assert_close(second.features, say("what mayor of Quill"))
    assert (first.asked, second.asked) == (4, 2)


def test_a_query_has_the_last_tokens() -> None:
    long = torch.randn(100, DIM)
    assert torch.equal(Query.of(long).features, long[-64:])
    rest = onward(Query.of(long), torch.randn(30, DIM), PARTS)
    assert (len(rest.features), rest.asked) == (64, 34)
    assert onward(Query.of(long), torch.randn(70, DIM), PARTS).asked == 0


def test_an_edit_found_by_what_the_last_one_says_was_led_to() -> None:
    query, weights = Query(torch.randn(4, DIM), 2), torch.tensor([1.0, 1.0, 3.0, 1.0])
    all_named = torch.ones(4, dtype=torch.bool)
    near = torch.tensor([0.5, 0.0, 0.8, 0.0])
    assert led_to(query, weights, near, all_named) == pytest.approx(0.6 - 0.25)
    assert led_to(query, weights, near, torch.tensor([True, True, False, False])) == 0.0, "it names nothing of it"
    assert led_to(query, weights, near, torch.tensor([False, False, False, True])) == pytest.approx(0.6 - 0.25)
    assert led_to(query, weights, torch.tensor([1.0, 1.0, 0.8, -0.4]), all_named) == pytest.approx(0.6 - 1.0)
    assert led_to(Query(torch.randn(4, DIM), 4), weights, torch.ones(4), all_named) == -1.0, "nothing was said"
    assert led_to(Query(torch.randn(4, DIM), 0), weights, torch.ones(4), all_named) == 1.0, (
        "all that was asked is found"
    )


def test_an_edit_leads_to_the_next_one(router: Router) -> None:
    rules = RoutingRules(candidates=3, threshold=0.0, open=0.1)
    assert picks(router, RoutingRules(candidates=3), CHAIN) == (0,)
    assert picks(router, rules, CHAIN) == (0, 1)


def test_an_edit_that_has_led_to_another_is_read_less(router: Router) -> None:
    rules = RoutingRules(candidates=3, threshold=0.0, open=0.1, led=4.0)
    found = chosen(router, rules, CHAIN)
    assert found.edits == (0, 1)
    alike = chosen(router, replace(rules, led=0.0), CHAIN).bias
    torch.testing.assert_close(found.bias, alike - torch.tensor([4.0, 0.0]))
    one = chosen(router, rules, "founder of Xcor is")
    torch.testing.assert_close(one.bias, alike[:1])


def test_the_way_goes_on_from_an_edit_that_the_question_picked_itself(router: Router) -> None:
    texts = ["founder of Xcor Bo", "home of Bo Quill", "mayor of Quill Zed"]
    rules = RoutingRules(candidates=2, threshold=-2.0, open=0.1, led=4.0)  # both candidates apply to the question
    found = chosen(router, rules, "what mayor of home of founder of Xcor", texts=texts)
    assert found.edits == (0, 2, 1), "the mayor's is picked at once, the home's on the way to it"
    assert (found.bias < -4.0).tolist() == [True, False, True]


def test_of_edits_that_the_question_picked_all_the_last_one_answers(router: Router) -> None:
    texts = ["founder of Xcor Bo", "home of Bo Quill", "mayor of Quill Zed"]
    rules = RoutingRules(candidates=3, threshold=-2.0, open=99.0, led=4.0, onward=9.0)  # nothing is left to look for
    found = chosen(router, rules, "what mayor of home of founder of Xcor", texts=texts)
    assert found.edits[0] == 0
    assert {edit: bool(bias < -4.0) for edit, bias in zip(found.edits, found.bias, strict=True)} == {
        0: True, 1: True, 2: False
    }  # fmt: skip


def test_halves_of_a_question_do_not_lead_to_each_other(router: Router) -> None:
    texts = ["founder of Xcor is Ann", "mayor of Zed is Bo"]
    rules = RoutingRules(candidates=3, threshold=0.0, open=0.1, led=4.0)
    found = chosen(router, rules, "what is founder of Xcor mayor of Zed", texts=texts)
    assert sorted(found.edits) == [0, 1]
    assert found.bias.min() > -1.0


def test_an_edit_that_may_not_be_read_is_no_step_on_the_way(router: Router) -> None:
    rules = RoutingRules(candidates=3, threshold=0.0, open=0.1)
    assert picks(router, rules, CHAIN, barred=frozenset({1})) == (0,)
    assert picks(router, rules, CHAIN, barred=frozenset({0})) == ()


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


def test_what_is_left_open_counts_the_tokens_that_no_pick_covers() -> None:
    weights = torch.tensor([1.0, 3.0])
    assert left_open(weights, torch.tensor([1.0, 0.0])) == pytest.approx(3 * 0.4)
    assert left_open(weights, torch.tensor([0.3, -0.5])) == pytest.approx(0.1 + 3 * 0.9)
    assert left_open(weights, torch.tensor([0.5, 0.4])) == 0.0


def test_a_question_begins_at_the_line_in_which_its_picks_cover_something() -> None:
    weights, covered = torch.ones(6), torch.tensor([0.0, 0.3, 0.0, 0.0, 0.9, 0.9])
    assert beginning(weights, covered, ()) == 0
    assert beginning(weights, covered, (2,)) == 2
    assert beginning(weights, covered, (2, 4, 5)) == 4
    assert beginning(weights, covered, (5,)) == 0
    assert beginning(weights, torch.zeros(6), (2, 4)) == 0, "nothing is covered"
    light = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.1, 1.0])
    assert beginning(light, covered, (2, 4, 5)) == 5, "a token of no weight"


def test_a_text_in_lines_before_is_not_open(router: Router) -> None:
    text, question = "what home town", "founder of Xcor is"
    rules = RoutingRules(threshold=0.0, open=0.1, margin=0.3)
    assert picks(router, rules, f"{text} {question}") == (0, 1)
    assert picks(router, rules, f"{text} {question}", lines=(3,)) == (0,)
    assert picks(router, rules, f"{question} {text}", lines=(3,)) == (0, 1), "what follows is"
