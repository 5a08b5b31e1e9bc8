"""The judge of conflicts: what it looks at, and that it treats both edits of a pair alike."""

import math

import pytest
import torch

from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.model.resolve import DEFAULT_ADAPTER_DIR
from incomes_plugin.selection import conflicts
from incomes_plugin.selection.conflicts import Judge, conflict_logits, judge, numbers_of
from incomes_plugin.selection.edit_pairs import NUMBERS
from incomes_plugin.selection.routing import Router
from incomes_plugin.selection.verifier import Verifier

FEATURES, PARTS = 24, 2


@pytest.fixture(scope="module")
def modules():
    torch.manual_seed(0)
    return Router(FEATURES, 8, 6).eval(), Verifier(FEATURES, PARTS, width=8, heads=2, layers=1).eval()


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(1)
    return Judge().requires_grad_(False)


def edit(*words):
    """Features of an edit: the same word has the same ones, wherever it stands."""
    tokens = [torch.randn(FEATURES, generator=torch.Generator().manual_seed(word)) for word in words]
    return torch.stack(tokens)


@pytest.fixture
def all_are_looked_at(monkeypatch):
    """The random verifier of these tests knows nothing."""
    monkeypatch.setattr(conflicts, "UNLIKELY", -100.0)
    monkeypatch.setattr(conflicts, "STRANGE", 2.0)


def test_the_same_words_are_a_duplicate(modules, net):
    found = judge(net, *modules, edit(1, 2, 3), [edit(1, 2, 3), edit(1, 2), edit(3, 2, 1)])
    assert found[0] == ("duplicate", 1.0)
    assert ("duplicate", 1.0) not in found[1:]
    assert judge(net, *modules, edit(1), []) == []


def test_edits_that_are_too_different_are_no_conflict(modules, net, monkeypatch):
    monkeypatch.setattr(conflicts, "UNLIKELY", -100.0)
    far, near, same = conflict_logits(net, *modules, edit(1, 2, 3), [edit(7, 8), edit(1, 2, 9), edit(1, 2, 3)])
    assert far == (-math.inf, -math.inf)
    assert all(map(math.isfinite, near))
    assert same == (math.inf, math.inf)


def test_numbers_say_how_the_words_match(modules, all_are_looked_at):
    places, numbers = numbers_of(*modules, edit(1, 2, 3, 4, 9), [edit(1, 2, 3, 5, 6, 9), edit(7, 8)])
    assert places == [0, 1]
    assert numbers.shape == (2, NUMBERS)
    lacks_shares, stretches, before, behind = (numbers[0, at : at + 2].tolist() for at in (6, 8, 10, 12))
    assert lacks_shares == pytest.approx([1 / 5, 2 / 6])
    assert stretches == [1 / 4, 1 / 4]
    assert before == pytest.approx([3 / 5, 3 / 6])
    assert behind == pytest.approx([1 / 5, 1 / 6])
    assert numbers[0, -2:].tolist() == pytest.approx([3 / 5, 1 / 5]), "the same at the beginning, and at the end"
    assert numbers[1, -2:].tolist() == [0, 0]


def test_it_does_not_matter_which_edit_is_the_new_one(modules, net, all_are_looked_at):
    one, two = edit(1, 2, 3, 4), edit(1, 2, 5)
    (_, there), (_, back) = numbers_of(*modules, one, [two]), numbers_of(*modules, two, [one])
    assert torch.allclose(net(there), net(back), atol=1e-5)


def test_the_packaged_net_knows_a_contradiction_by_its_numbers():
    """The verifier takes each for an answer to the other, and one word differs near the end; and a mere neighbour."""
    value_differs = [5, 5, 0.7, 0.7, 0.15, 0.15, 0.1, 0.1, 0.25, 0.25, 0.8, 0.8, 0.1, 0.1, 0.1, 0.1, 6, 6, 0.8, 0.1]
    subject_differs = [-7, -7, 0.3, 0.3, 0.7, 0.7, 0.4, 0.4, 0.25, 0.25, 0.4, 0.4, 0.3, 0.3, 0.5, 0.5, -7, -7, 0.4, 0.3]
    packaged = EditAdapter.load(DEFAULT_ADAPTER_DIR).judge
    (yes, same), (no, _) = packaged(torch.tensor([value_differs, subject_differs])).tolist()
    assert yes > 1
    assert same < 0
    assert no < -1
