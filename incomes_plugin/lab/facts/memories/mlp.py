"""A memory of two matrices with a ReLU in between. Facts may share answers. It is trained on all facts at once, and
none can be taken out."""

from __future__ import annotations

from typing import Self

import torch
import torch.nn.functional as F
from torch import nn

LEARNING_RATE = 3e-2
"""The paper's."""

STEPS = 4000
_LOOK = 10
"""Steps between two looks at how many facts are right."""


class MLPMemory(nn.Module):
    """F(z) = V' relu(W z), theorem 2 of arXiv 2412.06538.

    Args:
        inner: W `[F, E]`.
        outer: V `[F, U]`.
    """

    def __init__(self, inner: torch.Tensor, outer: torch.Tensor) -> None:
        super().__init__()
        self.inner = nn.Parameter(inner)
        self.outer = nn.Parameter(outer)

    @classmethod
    def fit(
        cls,
        keys: torch.Tensor,
        codes: torch.Tensor,
        answers: torch.Tensor,
        hidden: int,
        *,
        seed: int = 0,
        steps: int = STEPS,
        goal: float = 1.0,
    ) -> Self:
        """Cross-entropy over all codes by AdamW (no decay), all facts in every step, until `goal` of them are right.

        Args:
            keys: `[N, E]`, of length 1.
            codes: `[M, U]`, of length 1.
            answers: `[N]` int64, place of each fact's code.
            hidden: F.
        """
        generator = torch.Generator().manual_seed(seed)
        inner = torch.randn(hidden, keys.shape[1], generator=generator)
        outer = torch.randn(hidden, codes.shape[1], generator=generator) / hidden**0.5
        memory = cls(inner, outer)
        memory.learn(keys, codes, answers, steps=steps, goal=goal)
        return memory

    def learn(
        self, keys: torch.Tensor, codes: torch.Tensor, answers: torch.Tensor, *, steps: int = STEPS, goal: float = 1.0
    ) -> None:
        """Go on from the present weights with these facts alone."""
        self.requires_grad_(True)
        optimizer = torch.optim.AdamW(self.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=LEARNING_RATE / 100)
        for step in range(steps):
            logits = self(keys) @ codes.T
            if step % _LOOK == 0 and float((logits.argmax(dim=-1) == answers).float().mean()) >= goal:
                break
            optimizer.zero_grad()
            F.cross_entropy(logits, answers).backward()
            optimizer.step()
            schedule.step()
        self.requires_grad_(False)

    def forward(self, queries: torch.Tensor) -> torch.Tensor:
        """Values `[B, U]` of queries `[B, E]`."""
        return (queries @ self.inner.T).relu() @ self.outer

    @property
    def num_bytes(self) -> int:
        """Size of what a read needs."""
        return self.inner.nbytes + self.outer.nbytes
