"""RouteTable: what a router needs of one snapshot in one piece: the first gist layer's keys, their edits, edits' slots.

Immutable, like the snapshot it belongs to. A commit copies the parent's tensors and changes the rows of its delta; the
copy is the one part of a commit that grows with the set (256 bytes an entry of the default model in bfloat16).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from incomes_plugin.facts.gate.memory import FactMemory
from incomes_plugin.gist.types import Gist
from incomes_plugin.pool.plan import EditKey
from incomes_plugin.selection.routing import Routes


@dataclass(frozen=True)
class RouteTable:
    """Entries in slot order, the zero-gist's slot first; edits in rows of no particular order.

    Attributes:
        keys: `[n + 1, K * D]` in the pool's dtype and on its device; the zero-gist's row is unused.
        owners: `[n + 1]` int64, row of the edit that owns each slot.
        slots: `[N, Gmax]` int64, slots of each edit, padded with -1.
        ages: `[N]` int64, larger = later.
        edits: edit version of each row.
        row_of: the inverse of `edits`.
        next_age: age of the next edit.
        memory: names a token's candidates; None = all entries are searched.
    """

    keys: torch.Tensor
    owners: torch.Tensor
    slots: torch.Tensor
    ages: torch.Tensor
    edits: tuple[EditKey, ...]
    row_of: Mapping[EditKey, int]
    next_age: int
    memory: FactMemory | None = None

    @classmethod
    def empty(cls, dim: int, max_gists: int, like: torch.Tensor) -> RouteTable:
        """The table of no edits, in dtype and on the device of `like`."""
        none = torch.empty(0, dtype=torch.int64, device=like.device)
        return cls(like.new_empty(0, dim), none, none.view(0, max_gists), none, (), {}, 0)

    @property
    def routes(self) -> Routes:
        """What `pick` chooses from; empty where there are no edits."""
        memory = self.memory if self.memory is not None and self.memory.worth_it else None
        return Routes(self.keys[1:], self.owners[1:], self.ages, memory)

    def changed(
        self,
        added: Sequence[Gist],
        removed: Sequence[EditKey],
        slots: Mapping[EditKey, list[int]],
        moves: Sequence[tuple[int, int]],
        moved: Iterable[EditKey],
        num_entries: int,
        ages: Sequence[int] = (),
        memory: FactMemory | None = None,
    ) -> RouteTable:
        """The table after a commit.

        Args:
            slots: slots of every edit version after the commit.
            moves: (old slot, new slot) of entries that filled holes.
            moved: edit versions of those entries.
            num_entries: after the commit, with the zero-gist.
            ages: of the added gists; none: each is later than all before it.
            memory: after the commit.
        """
        edits, row_of, kept = self._without(removed)
        new = [(g.edit_id, g.version) for g in added]
        row_of |= {edit: len(edits) + i for i, edit in enumerate(new)}
        renumbered = [edit for row, edit in enumerate(edits) if kept[row] != row]
        edits += new
        index = self._index(kept)
        ages = ages or range(self.next_age, self.next_age + len(new))
        touched = {*new, *moved, *renumbered}
        return RouteTable(
            self._keys_after(added, slots, moves, num_entries),
            self._owners_after(touched, slots, row_of, num_entries),
            self._slots_after({*new, *moved}, slots, row_of, index, len(edits)),
            torch.cat([self.ages[index], self._index(ages)]),
            tuple(edits),
            row_of,
            max([self.next_age - 1, *ages]) + 1,
            memory,
        )

    def _without(self, removed: Sequence[EditKey]) -> tuple[list[EditKey], dict[EditKey, int], list[int]]:
        """Edits, their rows, and the old rows they come from: the last rows move into the holes."""
        edits, row_of, kept = list(self.edits), dict(self.row_of), list(range(len(self.edits)))
        for edit in removed:
            hole, last, source = row_of.pop(edit), edits.pop(), kept.pop()
            if last != edit:
                edits[hole], kept[hole], row_of[last] = last, source, hole
        return edits, row_of, kept

    def _keys_after(
        self,
        added: Sequence[Gist],
        slots: Mapping[EditKey, list[int]],
        moves: Sequence[tuple[int, int]],
        num_entries: int,
    ) -> torch.Tensor:
        keys = self.keys.new_zeros(num_entries, self.keys.shape[1])
        shared = min(num_entries, len(self.keys))
        keys[:shared] = self.keys[:shared]
        if moves:
            keys[self._index([target for _, target in moves])] = self.keys[self._index([source for source, _ in moves])]
        if added:
            places = [slot for g in added for slot in slots[g.edit_id, g.version]]
            keys[self._index(places)] = torch.cat([g.keys[0].flatten(1) for g in added]).to(keys)
        return keys

    def _owners_after(
        self,
        touched: Iterable[EditKey],
        slots: Mapping[EditKey, list[int]],
        row_of: Mapping[EditKey, int],
        num_entries: int,
    ) -> torch.Tensor:
        owners = self.owners.new_full((num_entries,), -1)
        shared = min(num_entries, len(self.owners))
        owners[:shared] = self.owners[:shared]
        pairs = [(slot, row_of[edit]) for edit in touched for slot in slots[edit]]
        if pairs:
            owners[self._index([slot for slot, _ in pairs])] = self._index([row for _, row in pairs])
        return owners

    def _slots_after(
        self,
        touched: Iterable[EditKey],
        slots: Mapping[EditKey, list[int]],
        row_of: Mapping[EditKey, int],
        kept: torch.Tensor,
        num_edits: int,
    ) -> torch.Tensor:
        width = self.slots.shape[1]
        table = torch.cat([self.slots[kept], self.slots.new_full((num_edits - len(kept), width), -1)])
        rows = [(row_of[edit], slots[edit] + [-1] * (width - len(slots[edit]))) for edit in touched]
        if rows:
            table[self._index([row for row, _ in rows])] = self._index([places for _, places in rows])
        return table

    def _index(self, values: Sequence[int] | Sequence[Sequence[int]]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self.keys.device)
