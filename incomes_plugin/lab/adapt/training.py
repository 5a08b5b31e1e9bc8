"""The loop that trains each part of an adapter: AdamW, a rate that warms up and falls, and a checkpoint."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

Tick = Callable[[int, int, float], None]
"""(step, steps, loss): called after every step, for those of an earlier run too."""

_CHECKPOINT_EVERY_S = 120.0


@dataclass(frozen=True)
class Descent:
    """How a module is trained.

    Attributes:
        steps: updates.
        rate: largest learning rate.
        warm: updates in which it grows.
        weight_decay, betas: AdamW's.
        clip: largest norm of a gradient.
    """

    steps: int
    rate: float
    warm: int = 30
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float = 1.0


def descend(
    module: nn.Module, loss_of: Callable[[random.Random], torch.Tensor], how: Descent, *, seed: int,
    tick: Tick = lambda *_: None, checkpoint: Path | None = None,
) -> None:  # fmt: skip
    """Train a module in place and freeze it; go on from the checkpoint where there is one.

    Args:
        loss_of: the loss of a batch that it draws.
        checkpoint: file that is written every two minutes and at the end.
    """
    torch.manual_seed(seed)
    rng = random.Random(seed)
    module.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(module.parameters(), how.rate, betas=how.betas, weight_decay=how.weight_decay)
    losses: list[float] = []
    if checkpoint is not None and checkpoint.is_file():
        found = torch.load(checkpoint)
        module.load_state_dict(found["module"])
        optimizer.load_state_dict(found["optimizer"])
        rng.setstate(found["random"])
        torch.set_rng_state(found["torch"])
        losses = found["losses"]
        for step, earlier in enumerate(losses, 1):
            tick(step, how.steps, earlier)
    saved = time.monotonic()
    for step in range(len(losses), how.steps):
        for group in optimizer.param_groups:
            group["lr"] = how.rate * (min(1.0, (step + 1) / how.warm) * (1 - step / how.steps) + 0.01)
        loss = loss_of(rng)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), how.clip)
        optimizer.step()
        losses.append(loss.item())
        tick(step + 1, how.steps, losses[-1])
        due = time.monotonic() - saved > _CHECKPOINT_EVERY_S or step + 1 == how.steps
        if checkpoint is not None and due:
            saved = time.monotonic()
            state = {"module": module.state_dict(), "optimizer": optimizer.state_dict(), "losses": losses}
            partial = checkpoint.with_suffix(".part")
            torch.save({**state, "random": rng.getstate(), "torch": torch.get_rng_state()}, partial)
            partial.replace(checkpoint)
    module.eval().requires_grad_(False)
