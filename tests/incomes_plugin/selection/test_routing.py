"""Routing: the cut to the best edits, its gate, the later of two contradictions, the read against plain attention."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from incomes_plugin.selection import routing
from incomes_plugin.selection.reference import select
from incomes_plugin.selection.routing import CROWD, Picks, Router, Routes, age_rank, bias, mass, pick, read

HEADS, KV_HEADS, DIM = 4, 2, 32
WIDTH = KV_HEADS * DIM


def router(*, bias: float = 0.0, gain: float = 4.0) -> Router:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(HEADS * DIM, WIDTH, generator=generator) / (HEADS * DIM) ** 0.5
    return Router(query, torch.zeros(WIDTH), torch.tensor(bias), torch.tensor(gain))


def some_routes(sizes: list[int], seed: int = 1) -> Routes:
    generator = torch.Generator().manual_seed(seed)
    owners = torch.tensor([edit for edit, size in enumerate(sizes) for _ in range(size)])
    keys = F.normalize(torch.randn(len(owners), WIDTH, generator=generator), dim=-1)
    return Routes(keys, owners, torch.arange(len(sizes)))


def some_query(tokens: int, seed: int = 2) -> torch.Tensor:
    return torch.randn(tokens, HEADS, DIM, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=30), seed=st.integers(0, 1000))
def test_weights_are_the_softmax_over_the_zero_gist_and_the_best_edits(sizes, seed):
    rule, routes, query = router(), some_routes(sizes, seed), some_query(5, seed)
    picks = pick(rule, query, routes)
    entries = rule.directions(query) @ routes.keys.T
    for row in range(5):
        logits = torch.stack([entries[row][routes.owners == e].max() for e in range(len(sizes))])
        best = logits.argsort(descending=True)[:4]
        expected = torch.cat([rule.bias[None], logits[best]]).softmax(0)
        torch.testing.assert_close(picks.none[row], expected[0])
        wanted = expected[1:] if expected[0] < rule.threshold else torch.zeros(len(best))
        assert picks.edits[row][: len(best)].tolist() == best.tolist()
        torch.testing.assert_close(picks.weights[row][: len(best)], wanted)
        assert not picks.weights[row][len(best) :].any()


def test_a_token_that_prefers_the_zero_gist_reads_nothing():
    picks = pick(router(bias=100.0), some_query(50), some_routes([2] * 20))
    assert (picks.none > 0.5).all()
    assert not picks.weights.any()


def test_many_rows_are_the_same_as_few(monkeypatch):
    rule, query, routes = router(), some_query(9), some_routes([3] * 8)
    whole = pick(rule, query, routes)
    monkeypatch.setattr(routing, "_MOST_LOGITS", 50)
    parts = pick(rule, query, routes)
    assert torch.equal(whole.edits, parts.edits)
    torch.testing.assert_close(whole.weights, parts.weights)


def right_among(count: int, query: torch.Tensor, rule: Router) -> Routes:
    """Edit 0 has one entry exactly where the token looks."""
    routes = some_routes([2] * (count + 1))
    keys = routes.keys.clone()
    keys[1] = F.normalize(rule.directions(query)[0], dim=-1)
    return replace(routes, keys=keys)


def test_more_distractors_do_not_dilute_the_right_edit():
    """Edits beyond the top k never enter the softmax: the weight among 10,000 is nearly the weight among 10."""
    rule, query = router(gain=4.0), some_query(1)
    for count in (10, 10_000):
        picks = pick(rule, query, right_among(count, query, rule))
        assert int(picks.edits[0, 0]) == 0
        assert float(picks.weights[0, 0]) > 0.99


def test_the_zero_gist_grows_with_the_crowd_only():
    """Up to CROWD edits nothing changes; beyond it the zero-gist gains `growth` for every e-fold."""
    query = some_query(1)
    for count in (10, CROWD - 1, 8 * CROWD - 1):
        plain, grown = router(), replace(router(), growth=0.7)
        routes = right_among(count, query, plain)
        (before, after) = (pick(rule, query, routes).none.logit() for rule in (plain, grown))
        expected = 0.7 * math.log(8) if count > CROWD else 0.0
        torch.testing.assert_close(after - before, torch.tensor([expected]), atol=1e-3, rtol=0)


def test_ranks_count_the_older_picks_about_the_same():
    ages = torch.tensor([[7, 3, 9, 3], [7, 3, 9, 4]])
    alike = torch.tensor([[True, True, True, False], [True, False, True, True]])
    assert age_rank(ages, alike).tolist() == [[1, 0, 2, 0], [1, 0, 2, 0]]


def test_only_picks_about_the_same_are_ranked():
    """One that is wanted less, or looks different, has the router's own logits, and does not count."""
    rule, query = replace(router(gain=1.0), recency=2.0), some_query(1)
    routes = right_among(6, query, rule)
    direction = rule.directions(query)[0]
    other = torch.linalg.svd(direction[None]).Vh[1]  # at right angles to it
    keys = torch.zeros_like(routes.keys)
    for edit, logit, aside in ((0, 9.0, 0.0), (1, 8.0, 0.0), (2, 7.0, 0.0), (3, 8.5, 1.0)):
        keys[2 * edit] = direction / direction.dot(direction) * logit + aside * other
    picks = pick(rule, query, Routes(keys, routes.owners, torch.arange(7)))
    gains = dict(zip(picks.edits[0].tolist(), picks.bias[0].tolist(), strict=True))
    assert (gains[0], gains[1], gains[2], gains[3]) == pytest.approx((0, 2, -2, -0.5), abs=1e-4)


def test_the_preference_for_the_later_falls_with_the_crowd():
    """Similar edits grow with N, contradictions do not."""
    rule = replace(router(), recency=1.0)
    assert [rule.preference(count) for count in (1, CROWD, 100 * CROWD)] == [1, 1, 0]
    assert rule.preference(2 * CROWD) == pytest.approx(1 - math.log(2))


def test_where_nothing_is_preferred_the_routers_logits_count_among_the_same_too():
    logits, ages = torch.tensor([[9.0, 8.0, 4.0]]), torch.tensor([[0, 1, 2]])
    alike = torch.tensor([[True, True, False]])
    assert bias(logits, alike, ages, 1.0, 1.0).tolist() == [[0, 1, -5]]
    assert bias(logits, alike, ages, 0.5, 1.0).tolist() == [[0, 0, -5]]
    assert bias(logits, alike, ages, 0.0, 1.0).tolist() == [[0, -1, -5]]
    assert bias(logits, alike, ages, 0.0, 0.0).tolist() == [[0, -1, -5]]


def test_of_two_edits_that_contradict_the_later_is_read():
    rule, query = replace(router(), recency=6.0), some_query(1)
    routes = right_among(6, query, rule)
    keys = routes.keys.clone()
    keys[12] = keys[1]  # edit 6 says something else about what edit 0 is about
    entries = torch.randn(1, 1, KV_HEADS, DIM).expand(1, 2, -1, -1)[:, :, None]
    for ages, later in ((range(7), 6), ([9, 1, 2, 3, 4, 5, 6], 0)):
        picks = pick(rule, query, Routes(keys, routes.owners, torch.tensor(ages)))
        first = Picks(picks.edits[:, :2], picks.weights[:, :2], picks.none, picks.bias[:, :2])
        assert sorted(first.edits[0].tolist()) == [0, 6]
        real = torch.ones(1, 2, 1, dtype=torch.bool)
        _, weights = read(query, torch.zeros(KV_HEADS, DIM), entries, entries, real, first.bias)
        shares = dict(zip(first.edits[0].tolist(), mass(weights, 2)[0].tolist(), strict=True))
        assert shares[later] > 100 * shares[6 - later]


def test_reading_is_the_reference_over_the_entries_of_the_picks():
    generator = torch.Generator().manual_seed(5)
    query = torch.randn(3, HEADS, DIM, generator=generator)
    zero = torch.randn(KV_HEADS, DIM, generator=generator)
    keys, values = (torch.randn(3, 2, 4, KV_HEADS, DIM, generator=generator) for _ in range(2))
    real = torch.tensor(
        [[[True] * 4, [True] * 2 + [False] * 2], [[True] * 3 + [False], [False] * 4], [[False] * 4] * 2]
    )
    mine, log_weights = read(query * 1.5 / DIM**0.5, zero, keys, values, real, torch.zeros(3, 2))
    for row in range(3):
        there = real[row].flatten()
        flat = [t[row].flatten(0, 1)[there] for t in (keys, values)]
        expected, weights = select(query[row : row + 1], zero, *flat, 1.5)
        torch.testing.assert_close(mine[row], expected[0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(log_weights[row].exp()[:, 0], weights[0, :, 0])
        shares = torch.zeros(2).index_add(0, torch.arange(8)[there] // 4, weights[0, :, 1:].mean(0))
        torch.testing.assert_close(mass(log_weights, 2)[row], shares)
    assert not mine[2].any()  # nothing picked, nothing added
