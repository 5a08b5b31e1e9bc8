"""RouteTable: what a router needs of one snapshot, contiguous: a route, the entry slots and the age of each edit.

Immutable, like the snapshot it belongs to. A commit copies the parent's tensors and changes the rows of its delta; the
copy is the one part of a commit that grows with the set (512 bytes a route: 5 MB at 10,000 edits).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from incomes_plugin.gist.types import Gist
from incomes_plugin.pool.plan import EditKey


@dataclass(frozen=True)
class RouteTable:
    """Rows in no particular order.

    Attributes:
        routes: `[N, R]` float32 on the pool's device.
        slots: `[N, Gmax]` int64, entry slots of each edit without the route token's, padded with -1.
        ages: `[N]` int64, larger = committed later.
        keys: edit version of each row.
        row_of: the inverse of `keys`.
        next_age: age of the next edit.
    """

    routes: torch.Tensor
    slots: torch.Tensor
    ages: torch.Tensor
    keys: tuple[EditKey, ...]
    row_of: Mapping[EditKey, int]
    next_age: int

    @classmethod
    def empty(cls, dim: int, max_gists: int, device: torch.device) -> RouteTable:
        """The table of no edits; `max_gists` counts the route token."""
        slots = torch.empty(0, max(1, max_gists - 1), dtype=torch.int64, device=device)
        return cls(torch.empty(0, dim, device=device), slots, slots.new_empty(0), (), {}, 0)

    def changed(
        self,
        added: Sequence[Gist],
        removed: Sequence[EditKey],
        slots: Mapping[EditKey, list[int]],
        moved: Sequence[EditKey],
    ) -> RouteTable:
        """The table after a commit.

        Args:
            added: gists whose last entry is the route token's.
            slots: slots of every edit version after the commit.
            moved: edit versions some of whose slots the commit changed.
        """
        keys, row_of, kept = self._without(removed)
        index = torch.tensor(kept, dtype=torch.int64, device=self.routes.device)
        start = len(keys)
        for gist in added:
            row_of[gist.edit_id, gist.version] = len(keys)
            keys.append((gist.edit_id, gist.version))
        routes = [self.routes[index], *(g.keys[0, -1].flatten()[None].to(self.routes) for g in added)]
        ages = torch.arange(self.next_age, self.next_age + len(added), device=self.ages.device)
        table = torch.cat([self.slots[index], self.slots.new_full((len(added), self.slots.shape[1]), -1)])
        for key in (*moved, *keys[start:]):
            row = torch.tensor(slots[key][:-1], dtype=torch.int64)
            table[row_of[key]] = torch.nn.functional.pad(row, (0, table.shape[1] - len(row)), value=-1).to(table)
        return RouteTable(
            torch.cat(routes), table, torch.cat([self.ages[index], ages]), tuple(keys), row_of,
            self.next_age + len(added),
        )  # fmt: skip

    def _without(self, removed: Sequence[EditKey]) -> tuple[list[EditKey], dict[EditKey, int], list[int]]:
        """Keys, their rows, and the old rows they come from: the last rows move into the holes."""
        keys, row_of, kept = list(self.keys), dict(self.row_of), list(range(len(self.keys)))
        for key in removed:
            hole, last, source = row_of.pop(key), keys.pop(), kept.pop()
            if last != key:
                keys[hole], kept[hole], row_of[last] = last, source, hole
        return keys, row_of, kept
