"""The threshold lies where right questions and near misses are told apart best; what an edit must cover comes first."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from incomes_plugin.lab.adapt.calibrating import HeldOut, Shares, _balance, calibrate, covers
from incomes_plugin.lab.adapt.features import Ragged
from incomes_plugin.selection.routing import Router, start_from
from incomes_plugin.selection.rules import RoutingRules
from incomes_plugin.selection.verifier import Verifier

F_DIM = 12


def test_between_two_separate_groups():
    right, near = torch.arange(10.0) + 5, torch.arange(10.0) - 8
    assert float(near.max()) < _balance(right, near, 1.0) <= float(right.min())


def test_fewest_errors_in_all():
    right, near = torch.tensor([0.0, 2.0, 3.0, 4.0]), torch.tensor([-1.0, 0.5, 1.0, 1.5])
    assert _balance(right, near, 1.0) == 2.0  # refuses one of four, where 0 would let three of four pass


@pytest.mark.parametrize("near", [torch.empty(0), torch.tensor([-9.0])])
def test_nothing_is_refused_for_nothing(near):
    assert _balance(torch.tensor([3.0, -2.0, 1.0]), near, 2.0) == -2.0


def test_what_passes_without_being_asked_may_count_twice():
    right, near = torch.tensor([0.0, 1.0, 2.0, 3.0]), torch.tensor([-2.0, -1.0, -0.5, 0.5, 1.5, 1.6, -3.0, -4.0])
    assert (_balance(right, near, 1.0), _balance(right, near, 2.0)) == (0.0, 2.0)


class Told(Verifier):
    """A verifier whose logit is the first feature of the edit's first token."""

    def forward(self, question, weights, question_mask, edit, edit_mask, cosines):
        return edit[:, 0, 0]


@pytest.fixture
def parts():
    torch.manual_seed(0)
    router = Router(F_DIM, F_DIM, 6).eval().requires_grad_(False)
    start_from(router, torch.randn(400, F_DIM))
    return router, Told(F_DIM, 2).eval().requires_grad_(False)


def test_prompts_of_which_no_edit_covers_anything_do_not_raise_the_threshold(parts):
    """The verifier takes edit 19 for an answer to whatever it is asked; no question is about it."""
    router, verifier = parts
    edits = [torch.randn(4 + i % 5, F_DIM) for i in range(20)]
    for edit, logit in zip(edits, [*torch.linspace(1, 2, 19), 9.0], strict=True):
        edit[0, 0] = logit
    refused = list(torch.randn(30, 3, F_DIM))
    nothing = Ragged.of([])
    held = HeldOut(
        Ragged.of(edits), [str(i) for i in range(20)], Ragged.of(edits[:19]), list(range(19)), Ragged.of(refused),
        nothing, [],
    )  # fmt: skip
    most = max(covers(router, prompt, edit) for prompt in refused for edit in edits)
    least = min(covers(router, edit, edit) for edit in edits[:19])
    assert most < least, "the prompts are unlike all edits"
    shares = Shares(fire=0.0, lose=1.0)
    found = calibrate(router, verifier, held, RoutingRules(), replace(shares, uncovered=0.0), seed=0)
    assert found.cover == pytest.approx(least, abs=1e-3)
    assert found.threshold == pytest.approx(1.0, abs=1e-3), "nothing is left to refuse"
    half = calibrate(router, verifier, held, RoutingRules(), replace(shares, uncovered=0.5), seed=0)
    assert half.cover > found.cover
