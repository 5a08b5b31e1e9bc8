"""Attribution: sorted, cut, and the rest belongs to the model."""

from __future__ import annotations

import pytest

from incomes_plugin.selection.attribution import by_edit


def test_edits_are_sorted_and_the_rest_is_the_models() -> None:
    found = by_edit({("b", 1): 0.3, ("tiny", 1): 0.0005, ("a", 2): 0.4})
    assert found.applied == [("a", 2, 0.4), ("b", 1, 0.3)]
    assert found.none_weight == pytest.approx(0.2995)


def test_nothing_read_is_all_the_models() -> None:
    assert (by_edit({}).none_weight, by_edit({}).applied) == (1.0, [])


def test_at_most_32_edits_are_named() -> None:
    assert len(by_edit({(f"e{i}", 1): 0.01 for i in range(100)}).applied) == 32
