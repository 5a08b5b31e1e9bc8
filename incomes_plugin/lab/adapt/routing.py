"""Train the router: the right edit's score above those of many others, by cross-entropy."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from incomes_plugin.lab.adapt.features import Ragged
from incomes_plugin.lab.adapt.training import Descent, Tick, descend
from incomes_plugin.selection.routing import Router, distances_from_end, start_from


@dataclass(frozen=True)
class RoutingSteps:
    """How long and how wide training is.

    Attributes:
        steps, batch: updates, and questions in each.
        crowd: wrong edits that all questions of a batch share.
        rate: largest learning rate.
    """

    steps: int = 500
    batch: int = 32
    crowd: int = 768
    rate: float = 1e-3


def train_router(
    edits: Ragged, questions: Ragged, owners: Sequence[tuple[int, ...]], route_dim: int, settings: RoutingSteps, *,
    seed: int, tick: Tick = lambda *_: None, checkpoint: Path | None = None,
) -> Router:  # fmt: skip
    """A router from standardised features.

    Args:
        edits: `[E, F]` each.
        questions: `[T, F]` each.
        owners: the edits that each question asks for.
        route_dim: R.
    """
    torch.manual_seed(seed)
    router = Router(edits.flat.shape[-1], route_dim)
    start_from(router, edits.flat.float())
    how = Descent(settings.steps, settings.rate, weight_decay=0.01, clip=float("inf"))

    def loss_of(rng: random.Random) -> torch.Tensor:
        return _loss(router, edits, questions, owners, settings, rng)

    descend(router, loss_of, how, seed=seed, tick=tick, checkpoint=checkpoint)
    return router


def _loss(
    router: Router, edits: Ragged, questions: Ragged, owners: Sequence[tuple[int, ...]], settings: RoutingSteps,
    rng: random.Random,
) -> torch.Tensor:  # fmt: skip
    asked = rng.sample(range(len(questions)), min(settings.batch, len(questions)))
    right = [rng.choice(owners[i]) for i in asked]
    pool = list(dict.fromkeys(right))
    pool += [i for i in rng.sample(range(len(edits)), min(settings.crowd, len(edits))) if i not in set(pool)]
    place = {edit: column for column, edit in enumerate(pool)}
    scores = score_all(router, [questions[i] for i in asked], edits, pool)
    also = torch.zeros_like(scores, dtype=torch.bool)
    for row, i in enumerate(asked):
        also[row, [place[edit] for edit in owners[i] if edit in place and edit != right[row]]] = True
    return F.cross_entropy(scores.masked_fill(also, -torch.inf), torch.tensor([place[edit] for edit in right]))


def score_all(router: Router, questions: Sequence[torch.Tensor], edits: Ragged, pool: Sequence[int]) -> torch.Tensor:
    """Scores `[questions, pool]`."""
    features, mask = edits.padded(pool)
    keys = router.route_keys(features.float())
    tokens = torch.cat(list(questions)).float()
    count, width, dim = keys.shape
    cosines = (router.directions(tokens) @ keys.view(count * width, dim).T).view(len(tokens), count, width)
    best = cosines.masked_fill(~mask, -1.0).amax(-1)
    distances = torch.cat([distances_from_end(len(q)) for q in questions])
    weighted = router.weights(tokens, distances)[:, None] * best
    owner = torch.arange(len(questions)).repeat_interleave(torch.tensor([len(q) for q in questions]))
    return torch.zeros(len(questions), count).index_add(0, owner, weighted)
