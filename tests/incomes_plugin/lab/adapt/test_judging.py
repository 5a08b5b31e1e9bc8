"""The judge of conflicts is fitted to pairs of edits of groups."""

from __future__ import annotations

import random

import torch

from incomes_plugin.lab.adapt.conflict_groups import ConflictGroup
from incomes_plugin.lab.adapt.judging import GroupedEdits, JudgedPair, JudgingSteps, Newcomer, fitted, judged_pairs
from incomes_plugin.selection import conflicts
from incomes_plugin.selection.edit_pairs import NUMBERS
from incomes_plugin.selection.routing import Router
from incomes_plugin.selection.verifier import Verifier

DIM = 24


def pairs(count: int) -> list[JudgedPair]:
    """Every third new edit is in conflict, and its numbers are higher."""
    rng = random.Random(0)

    def pair(new: int) -> JudgedPair:
        meant = new % 3 == 0
        numbers = tuple(rng.gauss(1.0 if meant else -1.0, 0.4) for _ in range(NUMBERS))
        kind = ("duplicates" if new % 2 else "contradictions") if meant else "neighbours"
        return JudgedPair(new, new, kind, "made", numbers, meant)

    return [pair(new) for new in range(count)]


def test_a_net_is_fitted_that_tells_conflicts_and_their_kinds() -> None:
    made = pairs(300)
    judge, found = fitted(made, JudgingSteps(100), false_alarms=0.02, seed=0)
    assert found["contradictions"][0] > 0.95
    assert found["neighbours"][0] <= 0.02
    assert found["neighbours of made"] == found["neighbours"]
    assert not any(tensor.requires_grad for tensor in judge.parameters())
    logits = judge(torch.tensor([each.numbers for each in made]))[:, 0]
    right = [(logit > 0) == each.meant for logit, each in zip(logits.tolist(), made, strict=True)]
    assert sum(right) / len(right) > 0.97


def test_where_no_pair_is_worth_a_look_nothing_is_a_conflict() -> None:
    nothing = [JudgedPair(new, new, "contradictions" if new % 2 else "others", "made", (), False) for new in range(20)]
    judge, found = fitted(nothing, JudgingSteps(20), seed=0)
    assert found["contradictions"] == (0.0, 10)
    assert (judge(torch.randn(50, NUMBERS))[:, 0] <= 0).all()


def test_every_text_of_a_group_is_a_new_edit_beside_the_others(monkeypatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(conflicts, "STRANGE", 2.0)
    monkeypatch.setattr(conflicts, "UNLIKELY", -100.0)
    router, verifier = Router(DIM, 8, 6).eval(), Verifier(DIM, 2, width=8, heads=2, layers=1).eval()
    groups = [ConflictGroup("made", f"edit {i}", (f"other {i}",), (), (), (f"beside {i}",)) for i in range(3)]
    features = {text: torch.randn(5, DIM) for group in groups for text in group.texts}
    edits = GroupedEdits(groups, features, router, verifier)
    assert list(edits.newcomers())[:3] == [
        Newcomer("edit 0", "others", 0), Newcomer("other 0", "contradictions", 0), Newcomer("beside 0", "neighbours", 0)
    ]  # fmt: skip
    assert sorted(edits.candidates([Newcomer("edit 1", "others", 1)])[0]) == [0, 2], "not beside itself"
    found = list(judged_pairs(edits, lambda *_: None))
    assert len(found) == 3 * (2 + 3 + 3)
    meant = [(pair.group, pair.kind) for pair in found if pair.meant]
    assert meant == [(number, "contradictions") for number in range(3)]
