"""Train the verifier: pairs of a question with the edit that answers it, and with edits that the router takes for it.

The negatives decide what it learns: the best wrong edits of questions, prompts that are close to an edit which does not
answer them, with that edit, and prompts of many kinds that no edit answers, with the edits that the router likes best
for them. An edit whose subject is named in a prompt may well answer it, even if the data set does not say so. So such a
pair is not used as a negative, unless the prompt was made to be one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F

from incomes_plugin.lab.adapt.features import Ragged
from incomes_plugin.lab.adapt.training import Descent, Tick, descend
from incomes_plugin.selection.routing import QUESTION_TOKENS, RouteKeys, Router, distances_from_end, similarities
from incomes_plugin.selection.verifier import Verifier, most_alike

_QUESTIONS_AT_ONCE = 16


@dataclass(frozen=True)
class VerifyingSteps:
    """How long training is.

    Attributes:
        steps: updates.
        right, near, wrong: pairs of each kind in an update.
        rate: largest learning rate.
        candidates: edits that the router likes best, from which the wrong ones of a prompt are drawn.
        edits: so many are looked at, drawn at random: searching wrong pairs costs their product with the questions.
    """

    steps: int = 8000
    right: int = 36
    near: int = 36
    wrong: int = 32
    rate: float = 1.5e-3
    candidates: int = 3
    edits: int = 4000


@dataclass(frozen=True)
class Prompts:
    """Prompts of one sort.

    Attributes:
        features: `[T, F]` each, of their questions.
        owners: edits that answer each.
        texts: of each, as far as they may name a subject.
        near: an edit that looks as if it answered each, and does not.
    """

    features: Ragged
    owners: Sequence[tuple[int, ...]]
    texts: Sequence[str]
    near: Sequence[int | None] = field(default_factory=tuple)


@dataclass(frozen=True)
class Pair:
    """A question (row of the questions that edits answer, or of the refused ones) and an edit."""

    refused: bool
    question: int
    edit: int


MayAnswer = Callable[[str, int, bool], bool]
"""(prompt, edit, whether other edits answer the prompt): whether the edit may do so too."""


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
def nearest_edits(router: Router, questions: Sequence[torch.Tensor], table: RouteKeys, count: int) -> list[list[int]]:
    """The edits that the router likes best for each of some questions' features `[T, F]`."""
    found: list[list[int]] = []
    for start in range(0, len(questions), _QUESTIONS_AT_ONCE):
        cut = [question[-QUESTION_TOKENS:].float() for question in questions[start : start + _QUESTIONS_AT_ONCE]]
        tokens, lengths = torch.cat(cut), torch.tensor([len(question) for question in cut])
        weights = router.weights(tokens, torch.cat([distances_from_end(len(question)) for question in cut]))
        similar = similarities(router.directions(tokens), table) * weights[:, None]
        owner = torch.arange(len(cut)).repeat_interleave(lengths)
        scores = similar.new_zeros(len(cut), table.num_edits).index_add(0, owner, similar)
        found += scores.topk(min(count, table.num_edits)).indices.tolist()
    return found


def pairs(
    router: Router, edits: Ragged, asked: Prompts, refused: Prompts, may_answer: MayAnswer, settings: VerifyingSteps,
    rng: random.Random,
) -> tuple[list[Pair], list[Pair], list[Pair]]:  # fmt: skip
    """Right pairs, those made to be near misses, and other wrong ones that the router likes."""
    pool = sorted(rng.sample(range(len(edits)), min(settings.edits, len(edits))))
    table = route_table(router, Ragged.of([edits[edit] for edit in pool]), dtype=torch.bfloat16)
    right = [Pair(False, i, edit) for i, own in enumerate(asked.owners) for edit in own]
    near = [Pair(True, i, edit) for i, edit in enumerate(refused.near) if edit is not None]
    wrong = []
    for prompts, is_refused in ((asked, False), (refused, True)):
        features = [prompts.features[i] for i in range(len(prompts.features))]
        for i, rows in enumerate(nearest_edits(router, features, table, 2 * settings.candidates)):
            taken = 0
            for row in rows:
                edit = pool[row]
                if edit in prompts.owners[i] or may_answer(prompts.texts[i], edit, not is_refused):
                    continue
                wrong.append(Pair(is_refused, i, edit))
                taken += 1
                if taken == settings.candidates:
                    break
    return right, near, wrong


def batch_logits(
    router: Router, verifier: Verifier, questions: Sequence[torch.Tensor], edits: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Logits `[B]` of pairs of features `[T, F]` and `[E, F]`.

    Short questions are not padded to the longest of all: most have 15 tokens, and a few in a batch have 64.
    """
    questions = [question[-QUESTION_TOKENS:] for question in questions]
    of_width: dict[int, list[int]] = {}
    for pair, question in enumerate(questions):
        of_width.setdefault(max(4, (len(question) - 1).bit_length()), []).append(pair)
    parts = [
        _padded_logits(router, verifier, [questions[pair] for pair in own], [edits[pair] for pair in own])
        for own in of_width.values()
    ]
    order = torch.tensor([pair for own in of_width.values() for pair in own])
    return torch.cat(parts)[order.argsort()]


def _padded_logits(
    router: Router, verifier: Verifier, questions: Sequence[torch.Tensor], edits: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Those of questions of like length."""
    lengths, sizes = list(map(len, questions)), list(map(len, edits))
    with torch.no_grad():
        asked, said = torch.cat(list(questions)).float(), torch.cat(list(edits)).float()
        questions, edits = asked.split(lengths), said.split(sizes)
        directions, keys = router.directions(asked).split(lengths), router.route_keys(said).split(sizes)
        cut = [most_alike(e, d @ k.T) for e, d, k in zip(edits, directions, keys, strict=True)]
        weights = router.weights(asked, torch.cat(list(map(distances_from_end, lengths)))).split(lengths)
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
    router: Router, edits: Ragged, num_parts: int, asked: Prompts, refused: Prompts, may_answer: MayAnswer,
    settings: VerifyingSteps, *, seed: int, tick: Tick = lambda *_: None, checkpoint: Path | None = None,
) -> Verifier:  # fmt: skip
    """A verifier from standardised features.

    Args:
        num_parts: feature layers.
        asked, refused: prompts that edits answer, and prompts that none does.
    """
    torch.manual_seed(seed)
    verifier = Verifier(edits.flat.shape[-1], num_parts)

    @cache
    def drawn_from() -> tuple[list[Pair], list[Pair], list[Pair]]:  # minutes that a finished checkpoint does not need
        return pairs(router, edits, asked, refused, may_answer, settings, random.Random(seed))

    how = Descent(settings.steps, settings.rate, warm=50, weight_decay=0.05)

    def loss_of(rng: random.Random) -> torch.Tensor:
        right, near, wrong = drawn_from()
        drawn = rng.choices(right, k=settings.right)
        drawn += rng.choices(near, k=settings.near) if near else []
        drawn += rng.choices(wrong, k=settings.wrong)
        questions = [(refused if pair.refused else asked).features[pair.question] for pair in drawn]
        logits = batch_logits(router, verifier, questions, [edits[pair.edit] for pair in drawn])
        truth = torch.zeros(len(drawn))
        truth[: settings.right] = 1.0
        return F.binary_cross_entropy_with_logits(logits, truth)

    descend(verifier, loss_of, how, seed=seed, tick=tick, checkpoint=checkpoint)
    return verifier
