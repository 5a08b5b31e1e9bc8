"""Fits the net that judges conflicts (`incomes_plugin/selection/conflict_judge.json`) to pairs of the train split.

The threshold is read off from nets that have not seen the group in question (five folds), at the wanted share of false
alarms: the share of new edits, in conflict with nothing, for which at least one candidate is taken for a conflict.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from incomes_plugin.selection.edit_pairs import NUMBERS

FOLDS = 5
HIDDEN = 16
STEPS = 800
RATE = 0.02
KIND_WEIGHT = 0.1
"""Of what tells duplicates from contradictions, beside what tells conflicts from neighbours."""


@dataclass(frozen=True)
class Pair:
    """A new edit beside one candidate.

    Attributes:
        new: number of the new edit; `group`: of its group.
        kind: of the new edit, e.g. `contradictions`; `source`: its data set.
        numbers: what the net gets; empty where no candidate is worth a look.
        meant: the candidate is the edit that the new one is in conflict with.
    """

    new: int
    group: int
    kind: str
    source: str
    numbers: tuple[float, ...]
    meant: bool


class Net(nn.Module):
    """What `Judge` computes, before its scales are folded in."""

    def __init__(self, numbers: torch.Tensor) -> None:
        super().__init__()
        self.mean, self.scale = numbers.mean(0), numbers.std(0) + 1e-6
        self.hidden, self.out = nn.Linear(NUMBERS, HIDDEN), nn.Linear(HIDDEN, 2)

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        """Logits `[n, 2]`, of one order of each pair."""
        return self.out(torch.tanh(self.hidden((numbers - self.mean) / self.scale)))

    @torch.no_grad()
    def both_ways(self, numbers: torch.Tensor) -> torch.Tensor:
        """The mean of both orders."""
        return (self(numbers) + self(swapped(numbers))) / 2

    @torch.no_grad()
    def as_json(self, threshold: float) -> str:
        """The file's content: scales folded into the first layer, the threshold into the last."""
        hidden = self.hidden.weight / self.scale
        bias = self.hidden.bias - hidden @ self.mean
        out_bias = self.out.bias - torch.tensor([threshold, 0.0])
        parts = {"hidden": hidden, "hidden_bias": bias, "out": self.out.weight, "out_bias": out_bias}
        lines = [f' "{name}": {_rows(tensor)}' for name, tensor in parts.items()]
        return "{\n" + ",\n".join(lines) + "\n}\n"


def fitted(pairs: Sequence[Pair], false_alarms: float) -> tuple[str, dict[str, Any]]:
    """The net as JSON, and what the folds say of it."""
    looked = [pair for pair in pairs if pair.numbers]
    numbers = torch.tensor([pair.numbers for pair in looked])
    logits = torch.zeros(len(looked))
    for fold in range(FOLDS):
        seen = torch.tensor([pair.group % FOLDS != fold for pair in looked])
        net = _fit(numbers[seen], [pair for pair, one in zip(looked, seen.tolist(), strict=True) if one])
        logits[~seen] = net.both_ways(numbers[~seen])[:, 0]
    threshold, report = _threshold(pairs, looked, logits.tolist(), false_alarms)
    return _fit(numbers, looked).as_json(threshold), report


def _fit(numbers: torch.Tensor, pairs: Sequence[Pair]) -> Net:
    torch.manual_seed(0)
    net = Net(numbers)
    numbers = torch.cat([numbers, swapped(numbers)])
    meant = torch.tensor([pair.meant for pair in pairs]).float().repeat(2)
    same = torch.tensor([pair.kind == "duplicates" for pair in pairs]).float().repeat(2)
    optimizer = torch.optim.AdamW(net.parameters(), RATE, weight_decay=0.01)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 - step / STEPS)
        optimizer.zero_grad()
        found = net(numbers)
        kind = F.binary_cross_entropy_with_logits(found[:, 1], same, reduction="none")
        loss = F.binary_cross_entropy_with_logits(found[:, 0], meant) + KIND_WEIGHT * (kind * meant).sum() / meant.sum()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return net


def swapped(numbers: torch.Tensor) -> torch.Tensor:
    """The same pairs with the other edit as the new one; see `Judge.logits`."""
    sides = numbers[:, : NUMBERS - 2].unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
    return torch.cat([sides, numbers[:, -2:]], -1)


def _threshold(
    pairs: Sequence[Pair], looked: Sequence[Pair], logits: Sequence[float], false_alarms: float
) -> tuple[float, dict[str, Any]]:
    highest: dict[int, float] = defaultdict(lambda: -1e9)
    meant: dict[int, float] = defaultdict(lambda: -1e9)
    for pair, logit in zip(looked, logits, strict=True):
        (meant if pair.meant else highest)[pair.new] = max((meant if pair.meant else highest)[pair.new], logit)
    kinds = {pair.new: (pair.kind, pair.source) for pair in pairs}
    mere = sorted((highest[new] for new, (kind, _) in kinds.items() if kind in ("neighbours", "others")), reverse=True)
    threshold = max(mere[int(false_alarms * len(mere))], 0.0)
    shares: dict[str, list[bool]] = defaultdict(list)
    for new, (kind, source) in kinds.items():
        found = (highest if kind in ("neighbours", "others") else meant)[new] > threshold
        shares[kind].append(found)
        shares[f"{kind} of {source}"].append(found)
    report = {name: [round(sum(values) / len(values), 4), len(values)] for name, values in sorted(shares.items())}
    return threshold, {"threshold": round(threshold, 4), "found": report}


def _rows(tensor: torch.Tensor) -> str:
    rounded = [[round(value, 4) for value in row] for row in tensor.reshape(-1, tensor.shape[-1]).tolist()]
    if tensor.dim() == 1:
        return json.dumps(rounded[0])
    return "[\n" + ",\n".join(f"  {json.dumps(row)}" for row in rounded) + "\n ]"
