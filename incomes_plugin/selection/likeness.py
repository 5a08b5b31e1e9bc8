"""What is known of pairs of tokens, one of a question and one of an edit, beside the router's cosine.

in: features of both sides; out: for each pair cosines and how the runs of same tokens lie, and the largest of each
token. On a CPU, where nothing is trained, in compiled loops (`pair_loops.py`), elsewhere in tensor operations.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

_SAME = 0.98
"""Two tokens count as the same from this cosine of their first-layer features on. Measured: 0.9998 or more for the same
token, 0.957 or less for different ones."""

RUN_KINDS = 4
"""Numbers about runs; see `runs`."""


class Likeness(NamedTuple):
    """What is known of pairs of tokens: the router's cosine, the cosine of each feature layer, and of runs.

    Attributes:
        alike: `[B, T, E, kinds]`; -1 for a pair with padding.
        known, seen: `[B, T, kinds]` and `[B, E, kinds]`, the largest of each token of the question and of the edit.
    """

    alike: torch.Tensor
    known: torch.Tensor
    seen: torch.Tensor


def liken(cosines: torch.Tensor, by_part: torch.Tensor, present: torch.Tensor) -> Likeness:
    """Likenesses of cosines `[B, T, E]` of the router and `[B, T, E, P]` of the feature layers.

    Args:
        present: `[B, T, E]` bool, False for padding.
    """
    if in_loops(by_part):
        from incomes_plugin.selection import pair_loops

        pairs, rows, columns, parts = by_part.shape
        kinds = 1 + parts + RUN_KINDS
        alike = by_part.new_empty(pairs, rows, columns, kinds)
        likeness = Likeness(alike, alike.new_empty(pairs, rows, kinds), alike.new_empty(pairs, columns, kinds))
        pair_loops.liken(
            cosines.contiguous().numpy(), by_part.contiguous().numpy(), present.contiguous().numpy(), _SAME,
            _logs(1 + max(rows, columns)), alike.numpy(), likeness.known.numpy(), likeness.seen.numpy(),
        )  # fmt: skip
        return likeness
    found = runs((by_part[..., 0] > _SAME) & present)
    alike = torch.cat([cosines[..., None], by_part, found], -1).masked_fill(~present[..., None], -1.0)
    return Likeness(alike, alike.amax(2), alike.amax(1))


def in_loops(numbers: torch.Tensor) -> bool:
    """Whether compiled loops take the place of tensor operations: on a CPU, where nothing is trained."""
    return numbers.device.type == "cpu" and numbers.dtype == torch.float32 and not torch.is_grad_enabled()


@lru_cache(maxsize=4)
def _logs(count: int) -> np.ndarray:
    """log(1 + n) of n = 0, 1, 2, ..."""
    return torch.arange(count).float().log1p().numpy()


def same_tokens(question: torch.Tensor, edit: torch.Tensor, num_parts: int) -> torch.Tensor:
    """Whether two tokens are the same, `[B, T, E]` bool, of features `[B, T, F]` and `[B, E, F]`."""
    left, right = (F.normalize(x[..., : x.shape[-1] // num_parts], dim=-1) for x in (question, edit))
    return left @ right.transpose(1, 2) > _SAME


def cosines_by_part(question: torch.Tensor, edit: torch.Tensor, num_parts: int) -> torch.Tensor:
    """Cosines `[B, T, E, P]` of the features of each of P feature layers. One question may stand for all B edits."""
    left, right = (F.normalize(x.unflatten(-1, (num_parts, -1)), dim=-1) for x in (question, edit))
    if len(left) == 1:
        return torch.einsum("tpf,bepf->btep", left[0], right)
    return torch.einsum("btpf,bepf->btep", left, right)


def runs(same: torch.Tensor) -> torch.Tensor:
    """Four numbers about runs of same tokens for each pair of tokens, `[B, T, E, 4]`.

    Whether the two are the same; log(1 + n) of the run of n pairs that they stand in; and where they differ, of the run
    that ends in front of them, and of the one that begins behind them.

    Args:
        same: `[B, T, E]` bool.
    """
    back, ahead = _run_lengths(same), _run_lengths(same.flip(1, 2)).flip(1, 2)
    own = torch.where(same, back + ahead - 1, 0)
    before = torch.where(same, 0, F.pad(back, (1, 0, 1, 0))[:, :-1, :-1])
    behind = torch.where(same, 0, F.pad(ahead, (0, 1, 0, 1))[:, 1:, 1:])
    return torch.stack([same.float(), own.log1p(), before.log1p(), behind.log1p()], -1)


def _run_lengths(same: torch.Tensor) -> torch.Tensor:
    """Length of the run that ends at each pair, `[B, T, E]` float32: how far back the last pair that differs is.

    Runs go along diagonals; when each row is shifted by its place, a diagonal is a column.
    """
    pairs, rows, columns = same.shape
    places = torch.arange(rows, device=same.device)
    column = (torch.arange(columns, device=same.device) + (rows - 1 - places)[:, None]).expand(pairs, -1, -1)
    shifted = same.new_zeros(pairs, rows, rows + columns - 1).scatter_(2, column, same)
    place = places[:, None].float()
    last_other = torch.where(shifted, -1.0, place).cummax(1).values
    return (place - last_other).gather(2, column)
