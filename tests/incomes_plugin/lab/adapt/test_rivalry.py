"""Couples of edits, and the bound between saying a thing anew and answering another half."""

from __future__ import annotations

from dataclasses import replace

import torch

from incomes_plugin.lab.adapt.calibrating import HeldOut
from incomes_plugin.lab.adapt.features import Ragged
from incomes_plugin.lab.adapt.rivalry import couples, harmless_bound, rivalry
from incomes_plugin.selection.picks import added
from incomes_plugin.selection.routing import Router, distances_from_end, start_from
from incomes_plugin.selection.rules import RoutingRules
from incomes_plugin.selection.verifier import Verifier
from tests.incomes_plugin.selection.test_picks import always

DIM = 12


def test_contradictions_share_subject_and_wording_and_pairs_do_not():
    found = couples(30, seed=1)
    assert [couple.replaces for couple in found] == [True] * 30 + [False] * 60
    assert all(couple.older != couple.later for couple in found)
    assert found == couples(30, seed=1)


def test_the_bound_tells_contradictions_from_halves():
    torch.manual_seed(0)
    router = Router(DIM, route_dim=DIM, hidden_dim=4).requires_grad_(False)
    start_from(router, torch.randn(200, DIM))
    questions = [torch.randn(6, DIM) for _ in range(40)]
    replaces = [index < 20 for index in range(40)]
    later = [q + 0.1 * torch.randn(6, DIM) if flag else q[3:] for q, flag in zip(questions, replaces, strict=True)]
    older = [q + 0.1 * torch.randn(6, DIM) if flag else q[:3] for q, flag in zip(questions, replaces, strict=True)]
    bound = rivalry(router, questions, older, later, replaces)
    for question, first, second, flag in zip(questions, older, later, replaces, strict=True):
        similar = [(router.directions(question) @ router.route_keys(edit).T).amax(-1) for edit in (first, second)]
        weights = router.weights(question, distances_from_end(len(question)))
        assert (added(weights, similar[0], similar[1]) < bound) is flag


def test_couples_that_cannot_be_told_apart_give_no_bound():
    torch.manual_seed(1)
    router = Router(DIM, route_dim=DIM, hidden_dim=4).requires_grad_(False)
    start_from(router, torch.randn(200, DIM))
    question, edit = torch.randn(6, DIM), torch.randn(4, DIM)
    assert rivalry(router, [question] * 3, [edit] * 3, [edit] * 3, [False, False, True]) == 0.0


def test_no_bound_drops_more_right_edits_than_allowed():
    """Ten questions; for three of them a wrong edit that is accepted covers them as well as the right one."""
    torch.manual_seed(2)
    router = Router(DIM, route_dim=DIM, hidden_dim=4).requires_grad_(False)
    start_from(router, torch.randn(200, DIM))
    verifier = Verifier(DIM, 2, width=8, heads=2, layers=1).eval().requires_grad_(False)
    questions = [torch.randn(5, DIM) for _ in range(10)]
    right = [question.clone() for question in questions]
    wrong = [torch.cat([question + 0.01 * torch.randn(5, DIM), torch.randn(1, DIM)]) for question in questions[:3]]
    edits, nothing = Ragged.of([*right, *wrong]), Ragged.of([])
    subjects = [f"subject {i}" for i in range(13)]
    held = HeldOut(edits, subjects, Ragged.of(questions), list(range(10)), nothing, nothing, [])
    rules, judge = RoutingRules(candidates=13, threshold=-1e9), always()
    strict, free = (harmless_bound(router, verifier, judge, held, rules, lose) for lose in (0.0, 0.2))
    assert strict < 0.01 < free
    nothing_else = replace(rules, threshold=1e9)
    assert harmless_bound(router, verifier, judge, held, nothing_else, 0.0) == float("inf")
    same = replace(held, subjects=["subject"] * 13)  # a contradiction, perhaps
    assert harmless_bound(router, verifier, judge, same, rules, 0.0) == float("inf")
    assert harmless_bound(router, verifier, always(-2.0), held, rules, 0.0) == float("inf"), "the judge keeps them all"


def test_without_contradictions_the_judge_still_decides():
    router = Router(DIM, route_dim=DIM, hidden_dim=4).requires_grad_(False)
    edit = torch.randn(4, DIM)
    assert rivalry(router, [], [], [], []) > 0
    assert rivalry(router, [edit], [edit], [edit], [False], harmless=0.01) == 0.01
