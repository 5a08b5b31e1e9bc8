"""Routing over the pool picks what routing over the reference's pool picks, whatever commits led there."""

from __future__ import annotations

from dataclasses import replace

import torch

from incomes_plugin.model.hf import ReferencePool
from incomes_plugin.selection.picks import choose
from incomes_plugin.selection.rules import RoutingRules
from tests.incomes_plugin.pool.small import adapter, gist, pool_of

RULES = RoutingRules(threshold=-100.0, rivalry=0.3)


def test_the_picks_are_the_references() -> None:
    pool = pool_of()
    gists = [gist(f"e{i}", 1 + i * 7 % 40) for i in range(60)]
    pool.commit("s", None, "a", 40, gists[:40], [])
    pool.commit("s", "a", "b", 37, [], [gist.edit for gist in gists[3:6]])
    pool.commit("s", "b", "c", 57, gists[40:], [])
    table = pool.commit("s", "c", "d", 42, [], [gist.edit for gist in gists[10:25]]).table
    left = [*gists[:3], *gists[6:10], *gists[25:]]
    reference = ReferencePool(left, adapter())
    for seed in range(20):
        question = torch.randn(9, adapter().shape.feature_dim, generator=torch.Generator().manual_seed(seed))
        picking = replace(adapter().picking, rules=RULES)
        found = choose(picking, question, table.keys, table.features_of, table.age_of)
        features = [gist.features.unpack() for gist in left]
        expected = choose(picking, question, reference.table, features.__getitem__, lambda row: row)
        assert [table.edits[row] for row in found.edits] == [left[row].edit for row in expected.edits]
        torch.testing.assert_close(found.bias, expected.bias, atol=1e-5, rtol=1e-5)
