"""Which gists stay: the threshold, the budget, never none, and keys that stay with their values."""

from __future__ import annotations

import pytest
import torch

from incomes_plugin.gist.types import Gist
from incomes_plugin.selection.keeping import KeepRule

SCORES = [-1.0, 3.0, 0.5, -2.0, 2.0]


def gist_of(scores: list[float]) -> Gist:
    """Two layers, one head of two; the rule below reads the first number of the first layer."""
    keys = torch.zeros(2, len(scores), 1, 2)
    keys[0, :, 0, 0] = torch.tensor(scores)
    return Gist("edit", 3, keys, torch.arange(len(scores)).float()[None, :, None, None].expand(2, -1, 1, 2))


def rule(budget: int | None = None, bias: float = 0.0) -> KeepRule:
    return KeepRule(torch.tensor([1.0, 0.0]), torch.tensor(bias), budget)


@pytest.mark.parametrize(
    ("budget", "bias", "places"),
    [(None, 0.0, [1, 2, 4]), (2, 0.0, [1, 4]), (9, 0.0, [1, 2, 4]), (None, -2.5, [1]), (None, 1.0, [0, 1, 2, 4])],
)
def test_threshold_and_budget(budget: int | None, bias: float, places: list[int]) -> None:
    thin = rule(budget, bias).thin(gist_of(SCORES))
    assert thin.keys[0, :, 0, 0].tolist() == [SCORES[place] for place in places]
    assert thin.values[1, :, 0, 1].tolist() == places
    assert (thin.edit_id, thin.version) == ("edit", 3)


def test_an_edit_keeps_its_best_gist() -> None:
    assert rule().kept(gist_of([-3.0, -1.0, -2.0]).keys).tolist() == [1]
