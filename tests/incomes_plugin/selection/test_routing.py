"""Routing: the cut to the best edits, the threshold, the later of two equal edits, the read against plain attention."""

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from incomes_plugin.selection.reference import select
from incomes_plugin.selection.routing import Router, pick, read

HEADS, KV_HEADS, DIM = 4, 2, 32
WIDTH = KV_HEADS * DIM


def router(*, bias: float = -1.0, gain: float = 8.0, top_k: int = 4, same: float = 0.95) -> Router:
    generator = torch.Generator().manual_seed(0)
    return Router(
        torch.randn(HEADS * DIM, WIDTH, generator=generator),
        torch.randn(WIDTH, WIDTH, generator=generator),
        torch.zeros(WIDTH),
        torch.tensor(bias),
        torch.tensor(gain),
        top_k=top_k,
        same=same,
    )


def some_routes(count: int, seed: int = 1) -> torch.Tensor:
    return F.normalize(torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed)), dim=-1)


def some_query(tokens: int, seed: int = 2) -> torch.Tensor:
    return torch.randn(tokens, HEADS, DIM, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 60), seed=st.integers(0, 1000))
def test_weights_are_the_softmax_over_the_zero_gist_and_the_best(count, seed):
    rule, routes, query = router(), some_routes(count, seed), some_query(5, seed)
    picks = pick(rule, query, routes, torch.arange(count))
    directions = F.normalize(query.flatten(1) @ rule.query, dim=-1)
    logits = (directions @ routes.T) * rule.gain
    for row in range(5):
        best = logits[row].argsort(descending=True)[:4]
        expected = torch.cat([rule.bias[None] * rule.gain, logits[row, best]]).softmax(0)
        assert picks.edits[row].tolist() == best.tolist()
        torch.testing.assert_close(picks.none[row], expected[0])
        wanted = expected[1:] if expected[0] < rule.threshold else torch.zeros(len(best))
        torch.testing.assert_close(picks.weights[row], wanted)


def test_a_token_that_prefers_the_zero_gist_reads_nothing():
    picks = pick(router(bias=2.0), some_query(50), some_routes(20), torch.arange(20))
    assert (picks.none > 0.5).all()
    assert not picks.weights.any()


def test_more_distractors_do_not_dilute_the_right_edit():
    """Edits beyond the top k never enter the softmax: the weight among 10,000 is nearly the weight among 10."""
    rule, query = router(gain=20.0), some_query(1)
    target = F.normalize(query.flatten(1) @ rule.query, dim=-1)
    for count in (10, 10_000):
        routes = torch.cat([target, some_routes(count)])
        picks = pick(rule, query, routes, torch.arange(count + 1))
        assert int(picks.edits[0, 0]) == 0
        assert float(picks.weights[0, 0]) > 0.99


def test_of_two_edits_that_say_the_same_the_later_is_read():
    rule, query = router(), some_query(3)
    target = F.normalize(query.flatten(1) @ rule.query, dim=-1)
    twin = F.normalize(target + 0.02 * some_routes(3, 9), dim=-1)
    for row in range(3):
        routes = torch.cat([target[row : row + 1], some_routes(5, 4), twin[row : row + 1]])
        for ages, later in (([0, 1, 2, 3, 4, 5, 6], 6), ([9, 1, 2, 3, 4, 5, 6], 0)):
            picks = pick(rule, query[row : row + 1], routes, torch.tensor(ages))
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
