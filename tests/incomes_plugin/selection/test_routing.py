"""Routing: scores against loops, with edits of several rows and rows without edit; weights; where training starts."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from incomes_plugin.selection import routing
from incomes_plugin.selection.routing import RouteKeys, Router, distances_from_end, similarities, start_from

R = 8
WIDTH = 3


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), num_edits=st.integers(1, 6), seed=st.integers(0, 99))
def test_similarities_equal_a_loop(data: st.DataObject, num_edits: int, seed: int) -> None:
    owners = [*range(num_edits), *data.draw(st.lists(st.integers(0, num_edits), max_size=8))]  # num_edits = no edit
    owners = data.draw(st.permutations(owners))
    keys, directions = unit(len(owners), WIDTH, R, seed=seed), unit(4, R, seed=seed + 100)
    found = similarities(directions, RouteKeys(keys, torch.tensor(owners), num_edits))
    assert found.shape == (4, num_edits)
    for token in range(4):
        for edit in range(num_edits):
            rows = [row for row, owner in enumerate(owners) if owner == edit]
            best = max(float(directions[token] @ keys[row, j]) for row in rows for j in range(WIDTH))
            assert found[token, edit].item() == pytest.approx(best, abs=1e-6)


def test_without_owners_every_row_is_an_edit(monkeypatch: pytest.MonkeyPatch) -> None:
    keys, directions = unit(7, WIDTH, R), unit(4, R, seed=1)
    plain = RouteKeys(keys, None, 7)
    expected = torch.einsum("tr,mwr->tmw", directions, keys).amax(-1)
    torch.testing.assert_close(similarities(directions, plain), expected)
    monkeypatch.setattr(routing, "_TOKENS_AT_ONCE_ON_CPU", 3 * WIDTH)
    torch.testing.assert_close(similarities(directions, plain), expected)


def test_no_edits_give_no_columns() -> None:
    table = RouteKeys(torch.empty(0, WIDTH, R), torch.empty(0, dtype=torch.int64), 0)
    assert similarities(unit(4, R), table).shape == (4, 0)


def test_weights_are_positive_and_depend_on_the_distance_from_the_end() -> None:
    torch.manual_seed(0)
    router = Router(12, R, 6)
    features = torch.randn(1, 12).expand(5, 12)
    weights = router.weights(features, distances_from_end(5))
    assert (weights > 0).all()
    assert weights[4] != weights[3]  # distances 0 and 1
    assert weights[3] == weights[2]  # distances 1 and 2 share a bucket
    far = router.weights(features[:2], torch.tensor([10_000, 100_000]))
    assert far[0] == far[1]


def test_training_starts_from_whitening_with_equal_weights() -> None:
    torch.manual_seed(0)
    features = torch.randn(400, 12) @ torch.diag(torch.linspace(0.1, 3, 12))
    router = Router(12, 12, 6)
    start_from(router, features)
    covariance = torch.cov(router.query(features).T)
    variances = covariance.diagonal()
    assert (variances.diff() > 0).all()  # the ridge keeps directions of small variance small
    assert (variances[-6:] - 1).abs().max() < 0.1
    assert (covariance - torch.diag(covariance.diagonal())).abs().max() < 1e-3
    assert torch.equal(router.query.weight, router.key.weight)
    weights = router.weights(features[:5], distances_from_end(5))
    torch.testing.assert_close(weights, weights[:1].expand(5))
