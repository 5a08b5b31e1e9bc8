"""Edits that may not be read are passed over, as if they were not in the table."""

from __future__ import annotations

import torch

from incomes_plugin.selection.picks import Picking, choose
from incomes_plugin.selection.rules import RoutingRules
from tests.incomes_plugin.selection.test_picks import F_DIM, Told, always, edits_with, router, table_of

__all__ = ["router"]
QUESTION = torch.randn(4, F_DIM, generator=torch.Generator().manual_seed(1))


def chosen(router, edits, rules, barred=frozenset(), rows=None):
    rows = list(range(len(edits))) if rows is None else rows
    may_read = (lambda _: True) if not barred else (lambda row: row not in barred)
    picks = choose(
        Picking(router, Told(), always(), rules), QUESTION, table_of(router, [edits[row] for row in rows]),
        [edits[row] for row in rows].__getitem__, rows.__getitem__, may_read,
    )  # fmt: skip
    return [rows[row] for row in picks.edits], [rows[row] for row in picks.candidates], picks


def test_what_is_barred_is_chosen_as_if_it_were_not_there(router):
    """Also where all of the best are barred: routing looks further, and verifies as many as ever."""
    edits = edits_with([float(i % 7) for i in range(60)])
    rules = RoutingRules(candidates=4, most_picks=3, threshold=-9.0)
    _, first, _ = chosen(router, edits, rules)
    for barred in (set(first[:1]), set(first), set(range(60)) - set(first[:2])):
        left = [row for row in range(60) if row not in barred]
        with_bar, without = chosen(router, edits, rules, barred), chosen(router, edits, rules, rows=left)
        assert with_bar[:2] == without[:2]
        torch.testing.assert_close(with_bar[2].bias, without[2].bias, rtol=0, atol=0)
        assert len(with_bar[1]) == min(4, len(left))


def test_nothing_is_left_to_read(router):
    edits = edits_with([1.0, 2.0, 3.0])
    assert chosen(router, edits, RoutingRules(threshold=-9.0), {0, 1, 2})[0] == []
