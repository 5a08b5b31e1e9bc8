"""When does a later edit replace an older one? Read off from contradictions, and from pairs that are none.

Two edits that answer one question may say the same thing anew, or answer one half each. The second kind adds much to
how well the question is covered, the first next to nothing (`RoutingRules.rivalry`). So does an edit to a later one of
the same subject that says something else. A last kind sets the limit: edits that the verifier takes for an answer
beside the right one, and that are later by chance. Edits of one subject are left out of that: published sets often
have several that contradict each other. The bound decides only about pairs that the judge of conflicts takes for one,
so no others are counted.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from incomes_plugin.lab.adapt.calibrating import HeldOut, covers
from incomes_plugin.lab.adapt.verifying import nearest_edits, route_table
from incomes_plugin.lab.data.facts import Fact, FactSource
from incomes_plugin.selection.conflicts import Judge, conflict_logits
from incomes_plugin.selection.picks import added
from incomes_plugin.selection.routing import QUESTION_TOKENS, Router, distances_from_end
from incomes_plugin.selection.rules import RoutingRules
from incomes_plugin.selection.verifier import Verifier, verify

_UNTOLD = 0.1
"""The bound where there is nothing to read it off from."""


@dataclass(frozen=True)
class Couple:
    """Two edits and a prompt.

    Attributes:
        older, later: texts of the edits.
        prompt: what is asked.
        replaces: the later edit says anew what the older one said.
    """

    older: str
    later: str
    prompt: str
    replaces: bool


def couples(count: int, *, seed: int) -> list[Couple]:
    """`count` each of invented facts: contradictions, pairs that one question asks for, and pairs of one subject.

    Of the last kind the prompt asks for the older edit alone.
    """
    source, rng = FactSource(seed, held_out=False), random.Random(seed)
    facts = source.distinct(2 * count)
    found = [Couple(fact.statement, _anew(source, fact).statement, fact.question, True) for fact in facts[:count]]
    for first, second in zip(facts[:count], facts[count:], strict=True):
        joint = rng.choice((", and ", " and ", "? "))
        rest = second.question if joint == "? " else second.question[:1].lower() + second.question[1:]
        both = f"{first.question.removesuffix('?')}{joint}{rest}"
        found.append(Couple(first.statement, second.statement, both, False))
        aside = source.fact(subject=first.subject, relation=source.other_relation(first.relation))
        found.append(Couple(first.statement, aside.statement, first.question, False))
    return found


def _anew(source: FactSource, fact: Fact) -> Fact:
    while True:
        other = source.fact(subject=fact.subject, relation=fact.relation)
        if other.answer != fact.answer:
            return other


@torch.inference_mode()
def rivalry(
    router: Router,
    questions: Sequence[torch.Tensor],
    older: Sequence[torch.Tensor],
    later: Sequence[torch.Tensor],
    replaces: Sequence[bool],
    harmless: float = float("inf"),
) -> float:
    """The bound that decides most couples rightly, but not more than `harmless`. Where no later edit replaces an older
    one, it is `_UNTOLD`: with 0 none ever would, and the judge decides all the same.

    Args:
        questions: features `[T, F]` of each couple's prompt.
        older, later: features `[E, F]` of its edits.
        replaces: whether the later one says anew what the older one said.
    """
    gains = []
    for question, first, second in zip(questions, older, later, strict=True):
        question = question[-QUESTION_TOKENS:].float()
        directions = router.directions(question)
        similar = [(directions @ router.route_keys(edit.float()).T).amax(-1) for edit in (first, second)]
        weights = router.weights(question, distances_from_end(len(question)))
        gains.append(added(weights, similar[0], similar[1]))
    if not any(replaces):
        return round(min(_UNTOLD, harmless), 4)
    order = sorted(range(len(gains)), key=gains.__getitem__)
    best, best_right, right = 0.0, sum(not flag for flag in replaces), sum(not flag for flag in replaces)
    for place, index in enumerate(order):
        right += 1 if replaces[index] else -1
        if right > best_right:
            above = gains[order[place + 1]] if place + 1 < len(order) else gains[index] + 0.01
            best, best_right = (gains[index] + above) / 2, right
    return round(max(min(best, harmless), 0.0), 4)


@torch.inference_mode()
def harmless_bound(
    router: Router, verifier: Verifier, judge: Judge, held: HeldOut, rules: RoutingRules, lose: float
) -> float:
    """The largest bound by which at most a share `lose` of right edits is dropped for a wrong one.

    Every accepted wrong edit is later than the right one half of the time. The judge's answer is nearly the same
    whichever of the two is the later one, so it is asked once for all wrong edits of a question.

    Args:
        rules: with cover, threshold and growth.
    """
    gains = []
    threshold = rules.threshold_among(len(held.edits))
    questions = [held.questions[i] for i in range(len(held.questions))]
    found = nearest_edits(router, questions, route_table(router, held.edits), rules.candidates)
    for question, owner, rows in zip(questions, held.owners, found, strict=True):
        question = question[-QUESTION_TOKENS:].float()
        directions, weights = router.directions(question), router.weights(question, distances_from_end(len(question)))
        edits = [held.edits[row] for row in rows]
        accepted = [
            edit for edit, row, logit in
            zip(edits, rows, verify(router, verifier, question, weights, directions, edits).tolist(), strict=True)
            if logit >= threshold and held.subjects[row] != held.subjects[owner]
            and covers(router, question, edit) >= rules.cover
        ]  # fmt: skip
        right = held.edits[owner].float()
        told = conflict_logits(judge, router, verifier, right, [edit.float() for edit in accepted])
        rivals = [edit for edit, (logit, _) in zip(accepted, told, strict=True) if logit > rules.conflict]
        similar = [(directions @ router.route_keys(edit.float()).T).amax(-1) for edit in (right, *rivals)]
        gains.append(min((added(weights, similar[0], wrong) for wrong in similar[1:]), default=float("inf")))
    return sorted(gains)[min(int(2 * lose * len(gains)), len(gains) - 1)] if gains else float("inf")
