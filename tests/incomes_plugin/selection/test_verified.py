"""Which of the edits that routing names are verified."""

from __future__ import annotations

import pytest
import torch

from incomes_plugin.selection.onward import Query
from incomes_plugin.selection.routing import RouteKeys, Router, start_from
from incomes_plugin.selection.verified import may_follow, near_best, verified
from incomes_plugin.selection.verifier import Verifier

F_DIM, PARTS = 12, 3


def near(similar: list[list[float]], margin: float, weights: list[float] | None = None) -> list[int]:
    """Rows are the candidates, columns the tokens of the question."""
    covered = torch.tensor(similar).T
    return near_best(torch.tensor(weights or [1.0] * len(covered)), covered, margin)


def test_an_edit_that_covers_as_much_is_near_the_best() -> None:
    one = [0.9, 0.9, 0.1, 0.1]
    assert near([one, [0.9, 0.8, 0.1, 0.1], [0.6, 0.6, 0.1, 0.1], [0.9, 0.0, 0.0, 0.0]], 0.1) == [0, 1]
    assert near([one, [0.9, 0.8, 0.1, 0.1], [0.6, 0.6, 0.1, 0.1], [0.9, 0.0, 0.0, 0.0]], 0.3001) == [0, 1, 2]
    assert near([one, [-0.9, -1.0, -1.0, 0.0]], 2.0) == [0, 1], "2 is all"


def test_an_edit_about_the_other_half_of_a_question_is_near_however_small_its_score() -> None:
    halves = [[0.9, 0.9, 0.9, 0.1], [0.1, 0.1, 0.1, 0.8]]
    assert near(halves, 0.1) == [0, 1]
    assert near([halves[0], [0.1, 0.1, 0.1, 0.24]], 0.1) == [0], "noise"
    assert near(halves, 0.1, [1.0, 1.0, 1.0, 1e-3]) == [0], "a token of no weight"


def test_a_text_in_front_of_the_question_makes_no_edit_near() -> None:
    text, apart = [0.2] * 40, ([0.9, 0.9], [0.3, 0.3])
    assert near([list(one) for one in apart], 0.2) == [0]
    assert near([[*text, *one] for one in apart], 0.2) == [0]
    mean = torch.tensor([[*text, *one] for one in apart]).mean(1)
    assert mean[0] - mean[1] < 0.2, "as a mean over all tokens the two would be near"


def test_where_nothing_is_covered_all_that_score_alike_are_near() -> None:
    assert near([[0.2, 0.1], [0.1, 0.1]], 0.1) == [0, 1]


def test_what_may_follow_names_what_the_pick_says_or_covers_what_is_left() -> None:
    torch.manual_seed(0)
    left, said, other = torch.randn(2, F_DIM), torch.randn(2, F_DIM), torch.randn(3, F_DIM)
    query, weights = Query(torch.cat([left, said]), 2), torch.ones(4)
    edits = [other, torch.cat([other, said[1:]]), other]
    similar = torch.tensor([[0.3, 0.3, 0.9, 0.9], [0.0, 0.0, 0.0, 1.0], [0.5, 0.4, 0.0, 0.0]]).T
    assert may_follow(query, weights, similar, edits, PARTS) == [1, 2]
    assert may_follow(query, torch.tensor([1.0, 1.0, 9.0, 1.0]), similar, edits, PARTS) == [2], "a word of no weight"


@pytest.fixture
def router() -> Router:
    torch.manual_seed(0)
    router = Router(F_DIM, F_DIM, 6).eval().requires_grad_(False)
    start_from(router, torch.randn(400, F_DIM))
    return router


def test_candidates_far_below_the_best_are_not_verified(router: Router) -> None:
    edits = torch.randn(20, 3, F_DIM)
    table = RouteKeys(router.route_keys(edits), None, 20)
    verifier = Verifier(F_DIM, PARTS).eval().requires_grad_(False)
    query = Query.of(torch.cat([edits[7], edits[7]]))

    def kept(margin: float, count: int = 20) -> tuple[int, ...]:
        found = verified(router, verifier, query, table, lambda row: edits[row], count, margin=margin)
        assert found is not None
        assert len(found.logits) == len(found.edits) == found.similar.shape[1] == len(found.features)
        for row, own in zip(found.edits, found.features, strict=True):
            assert torch.equal(own, edits[row])
        return found.edits

    assert len(kept(2.0)) == 20
    assert kept(2.0)[0] == kept(0.0)[0] == 7
    assert len(kept(0.0)) <= len(kept(0.5)) < 20
    assert set(kept(0.0)) <= set(kept(0.5))
    assert len(kept(2.0, 4)) == 4


def test_nothing_is_verified_where_nothing_can_follow(router: Router) -> None:
    class Fails(Verifier):
        def forward(self, *_: torch.Tensor) -> torch.Tensor:
            raise AssertionError("verified")

    edits, query = torch.randn(4, 3, F_DIM), Query(torch.randn(6, F_DIM), 3)
    unlike = RouteKeys(torch.zeros(4, 3, F_DIM), None, 4)  # nothing of the question is covered

    def found() -> object:
        return verified(router, Fails(F_DIM, PARTS), query, unlike, lambda row: edits[row], 4)

    assert found() is None
    edits[2, :] = query.features[3:]  # names all that the pick says
    with pytest.raises(AssertionError, match="verified"):
        found()
