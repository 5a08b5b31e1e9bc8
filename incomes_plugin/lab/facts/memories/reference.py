"""Memories straight from their definitions, in float64, fact by fact. The fast versions are tested against them."""

from __future__ import annotations

import torch


def hebbian(keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """W `[U, E]`: sum_i u_i x_i'."""
    matrix = torch.zeros(values.shape[1], keys.shape[1], dtype=torch.float64)
    for key, value in zip(keys.double(), values.double(), strict=True):
        matrix += torch.outer(value, key)
    return matrix


def ridge(keys: torch.Tensor, values: torch.Tensor, penalty: float) -> torch.Tensor:
    """W `[U, E]`: least squares with sqrt(penalty) I as further facts of value 0; no normal equations."""
    width = keys.shape[1]
    rows = torch.cat([keys.double(), penalty**0.5 * torch.eye(width, dtype=torch.float64)])
    wanted = torch.cat([values.double(), torch.zeros(width, values.shape[1], dtype=torch.float64)])
    return torch.linalg.lstsq(rows, wanted).solution.T


def whitened(samples: torch.Tensor, keys: torch.Tensor, shrink: float) -> torch.Tensor:
    """Keys `[B, E]` whitened by the covariance of samples `[N, E]`, through a singular value decomposition."""
    mean = samples.double().mean(dim=0)
    _, stretch, directions = torch.linalg.svd(samples.double() - mean, full_matrices=True)
    variances = torch.zeros(samples.shape[1], dtype=torch.float64)
    variances[: len(stretch)] = stretch**2 / (len(samples) - 1)
    scale = (variances + shrink * variances.mean()).rsqrt()
    turned = (keys.double() - mean) @ directions.T * scale @ directions
    return turned / turned.norm(dim=-1, keepdim=True)


def mlp(inner: torch.Tensor, outer: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """Value `[U]` of one query `[E]`: sum over hidden units of v_f max(0, w_f . z)."""
    value = torch.zeros(outer.shape[1], dtype=torch.float64)
    for weights, own in zip(inner.double(), outer.double(), strict=True):
        value += own * torch.clamp(weights @ query.double(), min=0)
    return value


def attention(keys: torch.Tensor, values: torch.Tensor, query: torch.Tensor, scale: float) -> torch.Tensor:
    """Value `[U]` of one query `[E]`: values weighted by exp(scale x.k_i), divided by their sum."""
    logits = scale * keys.double() @ query.double()
    weights = torch.exp(logits - logits.max())
    return (weights[:, None] * values.double()).sum(dim=0) / weights.sum()
