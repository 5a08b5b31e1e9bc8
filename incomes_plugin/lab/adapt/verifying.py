"""Train the verifier: pairs of a question with the edit that answers it, and with edits that the router takes for it.

The negatives decide what it learns: the best wrong edits of questions (near misses by subject and by relation),
neighbours of edits, questions whose edit is not there, and prompts of many kinds that no edit answers, each with the
edits that the router likes best for it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from incomes_plugin.lab.adapt.features import Ragged
from incomes_plugin.lab.adapt.routing import Tick, set_rate
from incomes_plugin.selection.picks import most_alike
from incomes_plugin.selection.routing import QUESTION_TOKENS, RouteKeys, Router, distances_from_end, similarities
from incomes_plugin.selection.verifier import Verifier


@dataclass(frozen=True)
class VerifyingSteps:
    """How long training is.

    Attributes:
        steps: updates.
        right, wrong: pairs in each.
        rate: largest learning rate.
        candidates: edits that the router likes best, from which the wrong ones of a prompt are drawn.
        edits, questions: so many are looked at, drawn at random: searching wrong pairs costs their product.
    """

    steps: int = 1000
    right: int = 32
    wrong: int = 64
    rate: float = 1e-3
    candidates: int = 3
    edits: int = 4000
    questions: int = 6000


@dataclass(frozen=True)
class Pair:
    """A question (row of `questions` or of `refused`) and an edit."""

    refused: bool
    question: int
    edit: int


def route_table(router: Router, edits: Ragged, width: int = 16, dtype: torch.dtype = torch.float32) -> RouteKeys:
    """Route keys of all edits, in rows of `width` tokens."""
    rows, owners = [], []
    with torch.inference_mode():
        keys = router.route_keys(edits.flat.float()).to(dtype)
    for edit in range(len(edits)):
        own = keys[edits.starts[edit] : edits.starts[edit + 1]]
        for part in own.split(width):
            rows.append(torch.cat([part, part[-1:].expand(width - len(part), -1)]))
            owners.append(edit)
    single = len(owners) == len(edits)
    return RouteKeys(torch.stack(rows), None if single else torch.tensor(owners), len(edits))


@torch.inference_mode()
def best_edits(router: Router, question: torch.Tensor, table: RouteKeys, count: int) -> list[int]:
    """The edits that the router likes best for a question's features `[T, F]`."""
    question = question[-QUESTION_TOKENS:].float()
    weights = router.weights(question, distances_from_end(len(question)))
    scores = weights @ similarities(router.directions(question), table)
    return scores.topk(min(count, table.num_edits)).indices.tolist()


def pairs(
    router: Router, edits: Ragged, questions: Ragged, owners: Sequence[int], refused: Ragged,
    settings: VerifyingSteps, rng: random.Random,
) -> tuple[list[Pair], list[Pair]]:  # fmt: skip
    """Right and wrong pairs of some of the questions, and wrong ones of all refused prompts."""
    pool = sorted(rng.sample(range(len(edits)), min(settings.edits, len(edits))))
    table = route_table(router, Ragged.of([edits[edit] for edit in pool]), dtype=torch.bfloat16)
    inside = set(pool)
    asked = [i for i, owner in enumerate(owners) if owner in inside]
    asked = rng.sample(asked, min(settings.questions, len(asked)))
    right = [Pair(False, i, owners[i]) for i in asked]
    wrong = []
    for i in asked:
        found = [pool[row] for row in best_edits(router, questions[i], table, settings.candidates + 1)]
        wrong += [Pair(False, i, edit) for edit in found if edit != owners[i]][: settings.candidates]
    for i in range(len(refused)):
        rows = best_edits(router, refused[i], table, settings.candidates)
        wrong += [Pair(True, i, pool[row]) for row in rows]
    return right, wrong


def batch_logits(
    router: Router, verifier: Verifier, questions: Sequence[torch.Tensor], edits: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Logits `[B]` of pairs of features `[T, F]` and `[E, F]`."""
    questions = [question[-QUESTION_TOKENS:].float() for question in questions]
    with torch.no_grad():
        cut = [most_alike(router, router.directions(q), e.float()) for q, e in zip(questions, edits, strict=True)]
        weights = [router.weights(q, distances_from_end(len(q))) for q in questions]
    longest, width = max(map(len, questions)), max(len(edit) for edit, _ in cut)
    count, dim = len(cut), questions[0].shape[-1]
    q, e = torch.zeros(count, longest, dim), torch.zeros(count, width, dim)
    w, cosines = torch.zeros(count, longest), torch.full((count, longest, width), -1.0)
    q_mask, e_mask = torch.zeros(count, longest, dtype=torch.bool), torch.zeros(count, width, dtype=torch.bool)
    for row, (question, (edit, cosine)) in enumerate(zip(questions, cut, strict=True)):
        first, length = longest - len(question), len(edit)
        q[row, first:], w[row, first:], q_mask[row, first:] = question, weights[row], True
        e[row, :length], e_mask[row, :length], cosines[row, first:, :length] = edit, True, cosine
    return verifier(q, w, q_mask, e, e_mask, cosines)


def train_verifier(
    router: Router, edits: Ragged, questions: Ragged, owners: Sequence[int], refused: Ragged, settings: VerifyingSteps,
    *, seed: int, tick: Tick = lambda *_: None, width: int = 96, weigh: Callable[[Pair], float] = lambda _: 1.0,
) -> Verifier:  # fmt: skip
    """A verifier from standardised features.

    Args:
        refused: features of prompts that no edit answers.
        weigh: how often a wrong pair is drawn, relative to the others.
    """
    torch.manual_seed(seed)
    rng = random.Random(seed)
    verifier = Verifier(edits.flat.shape[-1], width)
    right, wrong = pairs(router, edits, questions, owners, refused, settings, rng)
    odds = [weigh(pair) for pair in wrong]
    optimizer = torch.optim.AdamW(verifier.parameters(), settings.rate, weight_decay=0.05)
    verifier.train()
    for step in range(settings.steps):
        set_rate(optimizer, settings.rate, step, settings.steps, 50)
        drawn = rng.choices(right, k=settings.right) + rng.choices(wrong, odds, k=settings.wrong)
        asked = [(refused if pair.refused else questions)[pair.question] for pair in drawn]
        logits = batch_logits(router, verifier, asked, [edits[pair.edit] for pair in drawn])
        truth = torch.tensor([1.0] * settings.right + [0.0] * settings.wrong)
        loss = F.binary_cross_entropy_with_logits(logits, truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        tick(step + 1, settings.steps, loss.item())
    return verifier.eval().requires_grad_(False)
