"""Which edits shaped an answer: how much each weighed, averaged over heads, reading layers and the rows that read.

An edit's weight in one head and row is the gate times the sum of the attention weights of the edit's tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from incomes_plugin.gist.edit import EditKey

AppliedEdit = tuple[str, int, float]
"""Edit id, version, weight."""


@dataclass(frozen=True)
class Attribution:
    """Attribution of one answer; weights of all edits and `none_weight` sum to 1.

    Attributes:
        none_weight: the share of the model's own attention.
        applied: heaviest first; at most 32, none below 0.1 %.
    """

    none_weight: float
    applied: list[AppliedEdit]


def by_edit(weights: Mapping[EditKey, float], *, least: float = 0.001, most: int = 32) -> Attribution:
    """The attribution of an answer from the weights of the edits that it read, whose sum is 1 at most."""
    heaviest = sorted(weights.items(), key=lambda item: -item[1])[:most]
    applied = [(*edit, weight) for edit, weight in heaviest if weight >= least]
    return Attribution(1.0 - sum(weights.values()), applied)
