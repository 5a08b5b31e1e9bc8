"""From the value that a memory returned to the fact that was meant: the best code, its score, its lead, or none."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from incomes_plugin.errors import InvalidValue

_MOST_SCORES = 1 << 24
"""Scores computed at once."""


@dataclass(frozen=True)
class Readout:
    """What every query was answered.

    Attributes:
        best: `[B]` int64, place of the code with the largest score; -1 = abstained.
        scores: `[B]` float32, that score, abstained or not.
        margins: `[B]` float32, its lead over the second; infinite where there is one code.
    """

    best: torch.Tensor
    scores: torch.Tensor
    margins: torch.Tensor


def score(values: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """u_y . F(x) `[B, M]` of values `[B, U]` and codes `[M, U]`."""
    return values.float() @ codes.float().T


def decide(values: torch.Tensor, codes: torch.Tensor, *, threshold: float = -torch.inf, margin: float = 0.0) -> Readout:
    """argmax_y u_y . F(x), or none where the score is below `threshold` or its lead below `margin`.

    Args:
        values: `[B, U]`.
        codes: `[M, U]`, M >= 1.
    """
    if not len(codes):
        raise InvalidValue("there is no code to choose", param="codes")
    parts = values.split(max(1, _MOST_SCORES // len(codes)))
    best, scores, margins = (torch.cat(part) for part in zip(*(_best(part, codes) for part in parts), strict=True))
    refused = (scores < threshold) | (margins < margin)
    return Readout(best.masked_fill(refused, -1), scores, margins)


def _best(values: torch.Tensor, codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    top = score(values, codes).topk(min(2, len(codes)), dim=-1)
    second = top.values[:, 1] if len(codes) > 1 else torch.full_like(top.values[:, 0], -torch.inf)
    return top.indices[:, 0], top.values[:, 0], top.values[:, 0] - second


def threshold_at(unrelated: torch.Tensor, false_fires: float) -> float:
    """The threshold that this share of unrelated queries passes: their best scores `[B]` in, calibrated on them alone.

    Raises:
        InvalidValue: too few scores to say it.
    """
    if not 0 < false_fires < 1 or len(unrelated) * false_fires < 1:
        raise InvalidValue(
            f"{len(unrelated)} unrelated queries cannot show a share of {false_fires}; give {int(1 / false_fires) + 1}",
            param="unrelated",
        )
    first_refused = unrelated.float().sort(descending=True).values[int(len(unrelated) * false_fires)]
    return float(torch.nextafter(first_refused, torch.tensor(torch.inf)))
