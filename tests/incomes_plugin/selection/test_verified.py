"""Which of the edits that routing names are verified."""

from __future__ import annotations

import pytest
import torch

from incomes_plugin.selection.onward import Query
from incomes_plugin.selection.routing import RouteKeys, Router, start_from
from incomes_plugin.selection.verified import coverage, may_follow, near_best, verified
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


def test_what_an_edit_covers_of_a_question_is_the_same_behind_a_text_and_beside_another_question() -> None:
    question, weights = torch.tensor([[0.9, 0.1], [0.8, 0.2], [-0.5, 0.25]]), torch.tensor([2.0, 1.0, 5.0])
    torch.testing.assert_close(coverage(weights, question), torch.tensor([2 * 0.6 + 0.5, 0.0]))
    beside = torch.cat([torch.full((40, 2), 0.29), question])
    longer = torch.cat([torch.full((40,), 3.0), weights])
    torch.testing.assert_close(coverage(longer, beside), coverage(weights, question))


def test_an_edit_that_covers_too_little_of_a_question_is_not_verified(router: Router) -> None:
    edits = torch.randn(5, 3, F_DIM)
    table = RouteKeys(router.route_keys(edits), None, 5)
    verifier = Verifier(F_DIM, PARTS).eval().requires_grad_(False)
    query = Query.of(torch.cat([edits[3], edits[3][:1]]))

    def covered(cover: float) -> dict[int, float]:
        found = verified(router, verifier, query, table, lambda row: edits[row], 5, cover=cover)
        return {} if found is None else dict(zip(found.edits, coverage(found.weights, found.similar), strict=True))

    amounts = covered(0.0)
    assert len(amounts) == 5
    most, next_most = sorted(amounts.values(), reverse=True)[:2]
    assert amounts[3] == most > next_most
    assert set(covered(float(next_most))) == {row for row, amount in amounts.items() if amount >= next_most}
    assert set(covered(float(most + next_most) / 2)) == {3}
    assert covered(float(most) + 1e-3) == {}


def test_nothing_is_verified_where_nothing_can_follow(router: Router) -> None:
    class Fails(Verifier):
        def forward(self, *_: torch.Tensor) -> torch.Tensor:
            raise AssertionError("verified")

    edits, query = torch.randn(4, 3, F_DIM), Query(torch.randn(6, F_DIM), 3)
    unlike = RouteKeys(torch.zeros(4, 3, F_DIM), None, 4)  # nothing of the question is covered

    def found() -> object:
        return verified(router, Fails(F_DIM, PARTS), query, unlike, lambda row: edits[row], 4)

    assert found() is None
    whole, fails = Query.of(edits[0]), Fails(F_DIM, PARTS)
    assert verified(router, fails, whole, unlike, lambda row: edits[row], 4, cover=1e-3) is None
    edits[2, :] = query.features[3:]  # names all that the pick says
    with pytest.raises(AssertionError, match="verified"):
        found()
