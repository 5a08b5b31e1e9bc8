"""Train the router: the right edit's score above those of many others, by cross-entropy."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from incomes_plugin.lab.adapt.features import Ragged
from incomes_plugin.selection.routing import Router, distances_from_end, start_from

Tick = Callable[[int, int, float], None]
"""(step, steps, loss): called after every step."""


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
    edits: Ragged, questions: Ragged, owners: Sequence[int], route_dim: int, settings: RoutingSteps, *, seed: int,
    tick: Tick = lambda *_: None,
) -> Router:  # fmt: skip
    """A router from standardised features.

    Args:
        edits: `[E, F]` each.
        questions: `[T, F]` each.
        owners: the edit that each question asks for.
        route_dim: R.
    """
    torch.manual_seed(seed)
    rng = random.Random(seed)
    router = Router(edits.flat.shape[-1], route_dim)
    start_from(router, edits.flat.float())
    optimizer = torch.optim.AdamW(router.parameters(), settings.rate, weight_decay=0.01)
    router.train()
    for step in range(settings.steps):
        set_rate(optimizer, settings.rate, step, settings.steps)
        loss = _loss(router, edits, questions, owners, settings, rng)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        tick(step + 1, settings.steps, loss.item())
    return router.eval().requires_grad_(False)


def _loss(
    router: Router, edits: Ragged, questions: Ragged, owners: Sequence[int], settings: RoutingSteps, rng: random.Random
) -> torch.Tensor:
    asked = rng.sample(range(len(questions)), min(settings.batch, len(questions)))
    pool = list(dict.fromkeys(owners[i] for i in asked))
    pool += [i for i in rng.sample(range(len(edits)), min(settings.crowd, len(edits))) if i not in set(pool)]
    place = {edit: column for column, edit in enumerate(pool)}
    scores = score_all(router, [questions[i] for i in asked], edits, pool)
    return F.cross_entropy(scores, torch.tensor([place[owners[i]] for i in asked]))


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


def set_rate(optimizer: torch.optim.Optimizer, rate: float, step: int, steps: int, warm: int = 30) -> None:
    """Warm up, then fall to zero in a straight line."""
    for group in optimizer.param_groups:
        group["lr"] = rate * min(1.0, (step + 1) / warm) * (1 - step / steps) + rate * 0.01
