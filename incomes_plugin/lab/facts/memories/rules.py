"""Rules that write all facts into one matrix at once: keys `[N, E]` and values `[N, U]` in, W `[U, E]` out.

Hebbian   W = sum_i u_i x_i'                                          the paper's construction (theorem 1)
ridge     W = argmin sum_i |u_i - W x_i|^2 + penalty |W|^2            what recursive least squares arrives at
trained   W = argmin sum_i cross-entropy(C W x_i, a_i)                C: codes `[M, U]` of the values there are
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

PENALTY = 0.3
"""Of ridge and recursive least squares, for keys of length 1. A smaller one recalls no more, and near N = E it makes W
so large that queries about nothing score like facts (docs/facts.md)."""

LEARNING_RATE = 10.0
"""High (the paper takes 1000): a few steps make the logits large, and from then on training changes only facts that are
close to being confused."""

STEPS = 400


def hebbian(keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Sum of outer products."""
    return values.T @ keys


def ridge(keys: torch.Tensor, values: torch.Tensor, penalty: float = PENALTY) -> torch.Tensor:
    """Least squares with a penalty, solved in float64."""
    exact, wanted = keys.double(), values.double()
    normal = exact.T @ exact + penalty * torch.eye(keys.shape[1], dtype=torch.float64)
    return torch.linalg.solve(normal, exact.T @ wanted).T.to(values.dtype)


def trained(
    keys: torch.Tensor,
    codes: torch.Tensor,
    answers: torch.Tensor,
    *,
    steps: int = STEPS,
    learning_rate: float = LEARNING_RATE,
    goal: float = 1.0,
    start: torch.Tensor | None = None,
) -> torch.Tensor:
    """Cross-entropy over all codes by AdamW (no decay), all facts in every step, until `goal` of them are right.

    Args:
        codes: `[M, U]`.
        answers: `[N]` int64, place of each fact's code.
        start: W to go on from; None = 0.
    """
    matrix = torch.zeros(codes.shape[1], keys.shape[1], dtype=keys.dtype) if start is None else start.clone()
    matrix.requires_grad_(True)
    optimizer = torch.optim.AdamW([matrix], lr=learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=learning_rate / 100)
    for _ in range(steps):
        logits = keys @ matrix.T @ codes.T
        if float((logits.detach().argmax(dim=-1) == answers).float().mean()) >= goal:
            break
        optimizer.zero_grad()
        F.cross_entropy(logits, answers).backward()
        optimizer.step()
        schedule.step()
    return matrix.detach()
