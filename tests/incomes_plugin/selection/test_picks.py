"""Picks: candidates, threshold, the later of two rivals, cut long edits. A stand-in verifier says what it is told, and
a judge says of every pair that comes before it what it always says."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from incomes_plugin.selection.conflicts import Judge
from incomes_plugin.selection.likeness import runs
from incomes_plugin.selection.picks import Picking, Picks, choose
from incomes_plugin.selection.routing import EDIT_TOKENS, QUESTION_TOKENS, RouteKeys, Router
from incomes_plugin.selection.rules import CROWD, RoutingRules
from incomes_plugin.selection.verifier import Verifier, verify

F_DIM, R = 12, 8


class Told(torch.nn.Module):
    """A verifier whose logit is the first feature of the edit's first token."""

    num_parts = 2

    def forward(self, question, weights, question_mask, edit, edit_mask, cosines) -> torch.Tensor:
        return edit[:, 0, 0]


def always(logit: float = 9.0) -> Judge:
    """A judge with this logit of a conflict for every pair."""
    judge = Judge().requires_grad_(False)
    judge.out.zero_()
    judge.out_bias[0] = logit
    return judge


@pytest.fixture
def router() -> Router:
    torch.manual_seed(0)
    return Router(F_DIM, R, 6).eval().requires_grad_(False)


def table_of(router: Router, edits: list[torch.Tensor]) -> RouteKeys:
    keys = [router.route_keys(edit) for edit in edits]
    width = max(map(len, keys), default=1)
    rows = [torch.cat([k, k[-1:].expand(width - len(k), -1)]) for k in keys]
    return RouteKeys(torch.stack(rows) if rows else torch.empty(0, 1, R), None, len(rows))


def pick(
    router: Router, rules: RoutingRules, edits: list[torch.Tensor], question: torch.Tensor | None = None,
    judge: Judge | None = None,
) -> Picks:  # fmt: skip
    question = torch.randn(4, F_DIM, generator=torch.Generator().manual_seed(1)) if question is None else question
    picking = Picking(router, Told(), judge or always(), rules)
    return choose(picking, question, table_of(router, edits), edits.__getitem__, lambda row: row)


def edits_with(logits: list[float], seed: int = 2) -> list[torch.Tensor]:
    edits = list(torch.randn(len(logits), 3, F_DIM, generator=torch.Generator().manual_seed(seed)))
    for edit, logit in zip(edits, logits, strict=True):
        edit[0, 0] = logit
    return edits


def test_accepted_edits_come_best_first_with_their_log_probability(router: Router) -> None:
    found = pick(router, RoutingRules(threshold=0.5), edits_with([0.1, 3.0, 1.0, -2.0]))
    assert found.edits == (1, 2)
    torch.testing.assert_close(found.bias, F.logsigmoid(torch.tensor([3.0, 1.0])))
    assert sorted(found.candidates) == [0, 1, 2, 3]


def test_no_edits_and_no_accepted_edits_are_no_picks(router: Router) -> None:
    assert pick(router, RoutingRules(), []).edits == ()
    found = pick(router, RoutingRules(threshold=9.0), edits_with([1.0, 2.0]))
    assert (found.edits, len(found.bias), len(found.candidates)) == ((), 0, 2)


def test_only_the_best_candidates_are_verified_and_only_so_many_read(router: Router) -> None:
    found = pick(router, RoutingRules(candidates=5, most_picks=2, threshold=-99), edits_with([1.0] * 20))
    assert (len(found.candidates), len(found.edits)) == (5, 2)


def test_the_threshold_grows_with_the_number_of_edits() -> None:
    rules = RoutingRules(threshold=1.0, growth=0.5)
    assert rules.threshold_among(10) == rules.threshold_among(CROWD) == 1.0
    assert rules.threshold_among(int(CROWD * math.e**2)) == pytest.approx(2.0, abs=1e-3)


def test_an_edit_of_which_the_question_has_nothing_is_no_pick_however_sure_the_verifier_is(router: Router) -> None:
    edits = edits_with([5.0, 4.0])
    question = torch.cat([edits[1], edits[1]])
    assert pick(router, RoutingRules(threshold=0.0), edits, question).edits == (0, 1)
    found = pick(router, RoutingRules(threshold=0.0, cover=1e9), edits, question)
    assert (found.edits, found.candidates) == ((), ())
    weights = router.weights(question, torch.arange(5, -1, -1))
    covers = [
        float(weights @ ((router.directions(question) @ router.route_keys(edit).T).amax(1) - 0.3).clamp_min(0.0))
        for edit in edits
    ]
    most = covers.index(max(covers))
    assert pick(router, RoutingRules(threshold=0.0, cover=sum(covers) / 2), edits, question).edits == (most,)


def test_of_two_rivals_the_later_one_is_read_however_sure_the_verifier_is(router: Router) -> None:
    old, other = edits_with([3.0, 2.0])
    new = old.clone()
    new[0, 0] = 1.0
    rules = RoutingRules(threshold=0.0, rivalry=0.5)
    similar = pick(router, rules, [old, other, new])
    assert 0 not in similar.edits
    assert 2 in similar.edits
    assert pick(router, RoutingRules(threshold=0.0), [old, other, new]).edits == (0, 1, 2)


def test_an_older_edit_stays_where_the_judge_calls_the_later_one_no_conflict(router: Router) -> None:
    """Both are accepted, and the later one covers all that the older one does: only the judge can tell."""
    old, new = edits_with([3.0, 1.0])
    new[1:] = old[1:]
    rules = RoutingRules(threshold=0.0, rivalry=2.0, conflict=-1.0)
    assert pick(router, rules, [old, new], judge=always(-1.5)).edits == (0, 1)
    assert pick(router, rules, [old, new], judge=always(-0.5)).edits == (1,)
    assert pick(router, rules, [new, old], judge=always(-0.5)).edits == (1,), "the later one stays, whichever it is"


def test_edits_of_other_words_are_no_rivals_whatever_the_judge_says_and_repeated_ones_are(router: Router) -> None:
    old, new = edits_with([3.0, 1.0])
    rules = RoutingRules(threshold=0.0, rivalry=2.0)
    assert pick(router, rules, [old, new], judge=always(99.0)).edits == (0, 1)
    assert pick(router, rules, [old, old.clone()], judge=always(-99.0)).edits == (1,)


def test_the_judge_is_asked_only_about_edits_that_answer_the_same(router: Router) -> None:
    class Unasked(Judge):
        def forward(self, numbers: torch.Tensor) -> torch.Tensor:
            raise AssertionError("asked")

    old, new = edits_with([3.0, 1.0])
    new[1:] = old[1:]
    assert pick(router, RoutingRules(threshold=0.0, rivalry=-2.0), [old, new], judge=Unasked()).edits == (0, 1)


def test_a_rival_that_does_not_apply_is_no_rival(router: Router) -> None:
    old = edits_with([3.0])[0]
    new = old.clone()
    new[0, 0] = -5.0
    assert pick(router, RoutingRules(threshold=0.0, rivalry=0.5), [old, new]).edits == (0,)


def test_an_older_edit_stays_where_it_answers_another_part_of_the_question(router: Router) -> None:
    router.key.load_state_dict(router.query.state_dict())
    question = torch.randn(6, F_DIM, generator=torch.Generator().manual_seed(5))
    older, part, whole = question[:3].clone(), question[3:].clone(), question.clone()
    rules = RoutingRules(threshold=-99.0, rivalry=0.02)
    assert sorted(pick(router, rules, [older, part], question).edits) == [0, 1]
    assert pick(router, rules, [older, whole], question).edits == (1,)


def test_only_the_last_tokens_of_a_question_count(router: Router) -> None:
    question = torch.randn(QUESTION_TOKENS + 9, F_DIM)
    edits = edits_with([1.0, 2.0, 3.0])
    long, short = (pick(router, RoutingRules(), edits, q) for q in (question, question[-QUESTION_TOKENS:]))
    assert long.edits == short.edits
    assert torch.equal(long.logits, short.logits)


def test_logits_do_not_depend_on_other_candidates_and_long_edits_are_cut_to_what_is_alike(router: Router) -> None:
    torch.manual_seed(3)
    verifier = Verifier(F_DIM, 2, width=16, heads=2, layers=1).eval().requires_grad_(False)
    question, weights = torch.randn(4, F_DIM), torch.rand(4)
    given = question, weights, router.directions(question)
    short, long = torch.randn(3, F_DIM), torch.randn(EDIT_TOKENS + 20, F_DIM)
    together = verify(router, verifier, *given, [short, long])
    alone = [verify(router, verifier, *given, [edit])[0] for edit in (short, long)]
    torch.testing.assert_close(together, torch.stack(alone), atol=1e-5, rtol=1e-5)
    best = (router.directions(question) @ router.route_keys(long).T).amax(0)
    kept = long[best.topk(EDIT_TOKENS).indices.sort().values]
    torch.testing.assert_close(verify(router, verifier, *given, [kept])[0], together[1])


def test_a_padded_question_has_the_same_logit() -> None:
    torch.manual_seed(4)
    verifier = Verifier(F_DIM, 2, width=16, heads=2, layers=2).eval().requires_grad_(False)
    question, edit, weights = torch.randn(1, 4, F_DIM), torch.randn(1, 5, F_DIM), torch.rand(1, 4)
    cosines = torch.rand(1, 4, 5)
    masks = torch.ones(1, 4, dtype=torch.bool), torch.ones(1, 5, dtype=torch.bool)
    plain = verifier(question, weights, masks[0], edit, masks[1], cosines)
    padded = verifier(
        F.pad(question, (0, 0, 3, 0), value=7.0), F.pad(weights, (3, 0)), F.pad(masks[0], (3, 0)),
        F.pad(edit, (0, 0, 0, 2), value=7.0), F.pad(masks[1], (0, 2)), F.pad(cosines, (0, 2, 3, 0), value=9.0),
    )  # fmt: skip
    torch.testing.assert_close(padded, plain, atol=1e-5, rtol=1e-5)


def test_runs_of_same_tokens_and_where_they_break() -> None:
    question, edit = torch.tensor([1, 2, 3, 4, 5]), torch.tensor([9, 2, 3, 7, 5])
    found = runs((question[:, None] == edit)[None])[0].expm1().round()
    assert found[..., 1].nonzero().tolist() == [[1, 1], [2, 2], [4, 4]]
    assert found[1, 1, 1] == found[2, 2, 1] == 2  # the run of two
    assert (found[3, 3, 2], found[3, 3, 3]) == (2, 1)  # where it breaks: two in front, one behind
    assert (found[0, 0, 2], found[0, 0, 3]) == (0, 2)
    assert not found[..., 2:][question[:, None] == edit].any()


def test_one_question_for_all_pairs_has_the_logits_of_its_copies() -> None:
    torch.manual_seed(5)
    verifier = Verifier(F_DIM, 2, width=16, heads=2, layers=2).eval().requires_grad_(False)
    question, edit, weights = torch.randn(1, 6, F_DIM), torch.randn(3, 5, F_DIM), torch.rand(1, 6)
    edit[1, 2:4] = question[0, 1:3]  # a run of the same tokens
    mask, cosines = torch.ones(1, 6, dtype=torch.bool), torch.rand(3, 6, 5)
    edit_mask = torch.arange(5) < torch.tensor([5, 5, 2])[:, None]
    copies = verifier(question.expand(3, -1, -1), weights.expand(3, -1), mask.expand(3, -1), edit, edit_mask, cosines)
    torch.testing.assert_close(verifier(question, weights, mask, edit, edit_mask, cosines), copies)


def test_run_lengths_as_one_would_count_them() -> None:
    same = torch.rand(3, 7, 5, generator=torch.Generator().manual_seed(1)) < 0.6
    back = runs(same)[..., 1].expm1().round()
    for pair, t, e in same.nonzero().tolist():
        steps = [step for step in range(-6, 7) if 0 <= t + step < 7 and 0 <= e + step < 5]
        run = {step for step in steps if all(same[pair, t + s, e + s] for s in range(min(0, step), max(0, step) + 1))}
        assert back[pair, t, e] == len(run)


def test_another_digit_is_seen_whatever_the_name() -> None:
    """The kinds of likeness do not depend on which tokens a name is made of."""
    torch.manual_seed(6)
    names = torch.randn(2, 5, F_DIM)
    other = names.clone()
    other[:, 3] = torch.randn(2, F_DIM)
    first = F.normalize(names.unflatten(-1, (2, -1))[..., 0, :], dim=-1)
    second = F.normalize(other.unflatten(-1, (2, -1))[..., 0, :], dim=-1)
    found = runs(torch.einsum("btf,bef->bte", first, second) > 0.98)
    assert torch.equal(found[0], found[1])
    assert found[0, 3, 3, 2] > found[0, 3, 3, 3] > 0
