"""Routing: the cut to the best edits, the threshold, the later of two equal edits, the read against plain attention."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from incomes_plugin.selection import routing
from incomes_plugin.selection.reference import select
from incomes_plugin.selection.routing import Router, Routes, pick, read

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


def test_of_two_edits_that_say_the_same_the_later_is_read():
    rule, query = router(), some_query(1)
    routes = right_among(6, query, rule)
    keys = routes.keys.clone()
    keys[12] = F.normalize(keys[1] + 0.02 * keys[3], dim=-1)  # edit 6 says what edit 0 says
    for ages, later in ((range(7), 6), ([9, 1, 2, 3, 4, 5, 6], 0)):
        picks = pick(rule, query, Routes(keys, routes.owners, torch.tensor(ages)))
        weights = dict(zip(picks.edits[0].tolist(), picks.weights[0].tolist(), strict=True))
        assert weights[later] > 0.9
        assert weights[6 - later] == 0


def test_reading_one_edit_is_the_reference_without_a_zero_gist():
    generator = torch.Generator().manual_seed(5)
    query = torch.randn(3, HEADS, DIM, generator=generator)
    keys, values = (torch.randn(6, KV_HEADS, DIM, generator=generator) for _ in range(2))
    far = torch.full((KV_HEADS, DIM), 0.0)
    expected, weights = select(query * 50, far, keys, values, 1.0)  # the zero-gist's logit is 0
    padded = [F.pad(t, (0, 0, 0, 0, 0, 2), value=7.0).expand(3, 1, -1, -1, -1) for t in (keys, values)]
    real = torch.tensor([True] * 6 + [False] * 2).expand(3, 1, -1)
    mine = read(query * 50 / DIM**0.5, *padded, real, torch.ones(3, 1))
    sure = weights[..., 0] < 1e-6
    assert sure.any()
    torch.testing.assert_close(mine[sure], expected[sure], atol=1e-4, rtol=1e-4)


def test_weights_scale_what_is_read():
    query, real = some_query(2), torch.ones(2, 2, 3, dtype=torch.bool)
    keys, values = torch.randn(2, 2, 3, KV_HEADS, DIM), torch.randn(2, 2, 3, KV_HEADS, DIM)
    both = read(query, keys, values, real, torch.tensor([[0.7, 0.2], [0.0, 0.0]]))
    first = read(query, keys, values, real, torch.tensor([[1.0, 0.0]] * 2))
    second = read(query, keys, values, real, torch.tensor([[0.0, 1.0]] * 2))
    torch.testing.assert_close(both[0], 0.7 * first[0] + 0.2 * second[0])
    assert not both[1].any()
