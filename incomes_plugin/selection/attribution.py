"""Which edits shaped an answer: selection weights, averaged over query heads, gist layers and generated tokens.

Version 1 of the aggregation. Kernels give no weights, so they are computed again for traced rows only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

AppliedEdit = tuple[str, int, float]


@dataclass(frozen=True)
class Attribution:
    """Attribution of one answer; weights of all edits and `none_weight` sum to 1.

    Attributes:
        none_weight: weight of the zero-gist: how far no edit was picked.
        applied: (edit id, version, weight), heaviest first; at most 32, none below 0.1 %.
    """

    none_weight: float
    applied: list[AppliedEdit]


def selection_weights(query: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Weights `[n + 1]`, summed over rows and averaged over heads.

    Args:
        query: `[R, H, D]`, un-rotated, mapped, times c_N.
        keys: `[n + 1, K, D]`, zero-gist first.
    """
    rows, heads, dim = query.shape
    kv_heads = keys.shape[1]
    grouped = query.float().view(rows, kv_heads, heads // kv_heads, dim)
    logits = torch.einsum("rkgd,nkd->rkgn", grouped, keys.float()) / math.sqrt(dim)
    return logits.softmax(dim=-1).mean(dim=(1, 2)).sum(dim=0)


def by_edit(
    weights: Sequence[float], owners: Iterable[tuple[str, int] | None], *, least: float = 0.001, most: int = 32
) -> Attribution:
    """Sum the weights of each edit's entries; the entry without owner is the zero-gist."""
    none_weight, sums = 0.0, dict[tuple[str, int], float]()
    for weight, owner in zip(weights, owners, strict=True):
        if owner is None:
            none_weight += weight
        else:
            sums[owner] = sums.get(owner, 0.0) + weight
    heaviest = sorted(sums.items(), key=lambda item: -item[1])
    return Attribution(none_weight, [(*edit, weight) for edit, weight in heaviest[:most] if weight >= least])
