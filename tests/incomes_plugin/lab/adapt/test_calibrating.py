"""The threshold lies where right questions and near misses are told apart best."""

from __future__ import annotations

import pytest
import torch

from incomes_plugin.lab.adapt.calibrating import _balance


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
