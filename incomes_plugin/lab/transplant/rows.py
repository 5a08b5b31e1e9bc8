"""Where every row of the new matrices comes from: copied from the base, estimated, or idle.

Ids: the donor's own, then special tokens of the base that it lacks, then padding to a multiple of 64, which every usual
tensor-parallel size divides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from incomes_plugin.lab.transplant.alignment import Alignment
from incomes_plugin.lab.transplant.special import Specials
from incomes_plugin.lab.transplant.tokens import Vocabulary

ALIGNMENT = 64


@dataclass(frozen=True)
class RowPlan:
    """Sources of the new rows.

    Attributes:
        sources: `[V]` int64, base id whose row is copied bit by bit; -1 for the others.
        estimated: ids that a method makes a row for, ascending; all are ids of the donor.
        idle: ids no text becomes and nothing should say: fallback bytes beside their letter, holes, padding.
    """

    sources: torch.Tensor
    estimated: tuple[int, ...]
    idle: tuple[int, ...]

    @property
    def num_rows(self) -> int:
        """V of the new checkpoint."""
        return len(self.sources)

    def new_id(self, base_id: int) -> int | None:
        """The first id that has the base token's row."""
        found = (self.sources == base_id).nonzero()
        return int(found[0]) if len(found) else None


def plan_rows(donor: Vocabulary, alignment: Alignment, specials: Specials, carried_ids: Mapping[int, int]) -> RowPlan:
    """Give every id a source.

    Args:
        carried_ids: new id of every base id in `specials.carried`.
    """
    end = max([donor.size, *(new + 1 for new in carried_ids.values())])
    rows = -(-end // ALIGNMENT) * ALIGNMENT
    sources = torch.full((rows,), -1)
    pairs = {**alignment.copied, **specials.copied, **{new: base for base, new in carried_ids.items()}}
    sources[torch.tensor(list(pairs), dtype=torch.long)] = torch.tensor(list(pairs.values()), dtype=torch.long)
    estimated = tuple(sorted({*alignment.new, *specials.unmatched}))
    idle = tuple(sorted(set(range(rows)) - pairs.keys() - set(estimated)))
    return RowPlan(sources, estimated, idle)
