"""RouteTable: what routing sees of one snapshot. Immutable; `changed` makes the next snapshot's table from it.

Route keys lie in an arena `[capacity, W, R]` that the snapshots of an edit set share. A commit writes the rows of new
edits behind those that any snapshot sees, and leaves the rows of removed edits where they are, without an owner. When
the arena is full, or more than a quarter of the rows has no owner, the rows that have one move to a new arena. A large
arena has an index (`indexing.py`), which lags behind the rows and moves with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch

from incomes_plugin.gist.edit import EditKey
from incomes_plugin.gist.types import Gist
from incomes_plugin.selection.routing import RouteKeys, Router
from incomes_plugin.selection.token_index import ArenaIndex

ROW_TOKENS = 16
"""W, tokens in a row; a longer edit takes several rows."""

_LEAST_ROWS = 16
"""Rows of the smallest arena."""


_Item = TypeVar("_Item")


class Charge(NamedTuple):
    """What one gist in the pool costs.

    Attributes:
        serial: number of the gist; a later one has a larger number, and no two gists of a pool have the same.
        num_bytes: of features, latents and route keys.
    """

    serial: int
    num_bytes: int


@dataclass(frozen=True, eq=False)
class RouteTable:
    """Edits of a snapshot, one row each, in no particular order.

    Attributes:
        keys: route keys; the owner of a row is an edit's row in this table, or `num_edits` for a row without owner.
        edits: edit version in each row.
        gists: its gist.
        ages: of two rivals the one with the larger age is the later.
        charges: what each gist costs.
        next_age: age of the next edit whose age is not given.
        owned_rows: rows of `keys` that have an owner.
        arena: `[capacity, W, R]`; `keys.keys` is the beginning of it.
    """

    keys: RouteKeys
    edits: list[EditKey]
    gists: list[Gist]
    ages: list[int]
    charges: list[Charge]
    next_age: int
    owned_rows: int
    arena: torch.Tensor

    @classmethod
    def empty(cls, route_dim: int, dtype: torch.dtype, device: torch.device) -> RouteTable:
        """The table of no edits."""
        arena = torch.empty(0, ROW_TOKENS, route_dim, dtype=dtype, device=device)
        owners = torch.empty(0, dtype=torch.int64, device=device)
        return cls(RouteKeys(arena, owners, 0, ArenaIndex()), [], [], [], [], 0, 0, arena)

    @property
    def index(self) -> ArenaIndex:
        """Of the arena, shared like it."""
        assert self.keys.index is not None
        return self.keys.index

    def features_of(self, row: int) -> torch.Tensor:
        """Features `[E, F]` float32 of the edit in a row, on the device."""
        return self.gists[row].features.unpack(self.arena.device)

    def age_of(self, row: int) -> int:
        """Age of the edit in a row."""
        return self.ages[row]

    def changed(
        self,
        router: Router,
        added: Sequence[Gist],
        removed_rows: Sequence[int],
        ages: Sequence[int],
        charges: Sequence[Charge],
    ) -> tuple[RouteTable, dict[int, int]]:
        """The table after a commit, and the new rows of the edits that moved: the last ones fill the holes.

        Args:
            removed_rows: rows in this table of the edits that leave.
            ages: of the added gists; none: each is later than all before it.
            charges: of the added gists.
        """
        ages = list(ages) or list(range(self.next_age, self.next_age + len(added)))
        left = len(self.edits) - len(removed_rows)
        moves = _moves(len(self.edits), left, removed_rows)
        owned_rows = self.owned_rows + sum(map(rows_of, added)) - sum(rows_of(self.gists[row]) for row in removed_rows)
        owners = self._owners_after(removed_rows, moves, left, added)
        arena, keys = self._keys_after(router, added, owners, owned_rows, left + len(added))
        table = RouteTable(
            keys=keys,
            edits=[*_kept(self.edits, moves, left), *(gist.edit for gist in added)],
            gists=[*_kept(self.gists, moves, left), *added],
            ages=[*_kept(self.ages, moves, left), *ages],
            charges=[*_kept(self.charges, moves, left), *charges],
            next_age=max([self.next_age - 1, *ages]) + 1,
            owned_rows=owned_rows,
            arena=arena,
        )
        return table, moves

    def _owners_after(
        self, removed_rows: Sequence[int], moves: Mapping[int, int], left: int, added: Sequence[Gist]
    ) -> torch.Tensor:
        """Owners of all rows after a commit, those of the added gists last."""
        device = self.arena.device
        num_edits = left + len(added)
        renamed = torch.arange(len(self.edits) + 1, device=device)
        renamed[[*removed_rows, len(self.edits)]] = num_edits
        if moves:
            renamed[list(moves)] = torch.tensor(list(moves.values()), device=device)
        counts = torch.tensor([rows_of(gist) for gist in added], dtype=torch.int64, device=device)
        new = torch.arange(left, num_edits, device=device).repeat_interleave(counts)
        assert self.keys.owners is not None
        return torch.cat([renamed[self.keys.owners], new])

    def _keys_after(
        self, router: Router, added: Sequence[Gist], owners: torch.Tensor, owned_rows: int, num_edits: int
    ) -> tuple[torch.Tensor, RouteKeys]:
        """The arena and the route keys after a commit: appended to this table's arena, or moved to a new one."""
        arena, index, start = self.arena, self.index, len(self.keys.keys)
        if len(owners) > len(arena) or 4 * (len(owners) - owned_rows) > len(owners):
            kept = owners[:start] < num_edits
            old, owners = arena[:start][kept], owners[torch.cat([kept, kept.new_ones(len(owners) - start)])]
            start = len(old)
            arena = arena.new_empty(_capacity(owned_rows), *arena.shape[1:])
            arena[:start] = old
            index = index.moved(kept)
        for gist in added:
            end = start + rows_of(gist)
            arena[start:end] = route_rows(router, gist)
            start = end
        return arena, RouteKeys(arena[:start], owners, num_edits, index)


def rows_of(gist: Gist) -> int:
    """Rows of route keys that a gist takes."""
    return -(-gist.num_tokens // ROW_TOKENS)


def route_rows(router: Router, gist: Gist) -> torch.Tensor:
    """Route keys `[rows, W, R]` float32 of a gist; the last row repeats the last token.

    One gist at a time: its keys are the same to the bit whatever else a commit adds.
    """
    keys = router.route_keys(gist.features.unpack(router.key.weight.device))
    padding = keys[-1:].expand(rows_of(gist) * ROW_TOKENS - len(keys), -1)
    return torch.cat([keys, padding]).unflatten(0, (-1, ROW_TOKENS))


def _capacity(rows: int) -> int:
    """Rows of a new arena: the next power of two."""
    return max(_LEAST_ROWS, 1 << (rows - 1).bit_length())


def _moves(num_edits: int, left: int, removed_rows: Sequence[int]) -> dict[int, int]:
    """Old row -> new row of the edits behind the first `left` rows that stay: they fill the holes."""
    removed = set(removed_rows)
    movers = [row for row in range(left, num_edits) if row not in removed]
    return dict(zip(movers, sorted(row for row in removed if row < left), strict=True))


def _kept(old: Sequence[_Item], moves: Mapping[int, int], left: int) -> list[_Item]:
    """The items of the edits that stay, in their new rows."""
    kept = list(old[:left])
    for source, target in moves.items():
        kept[target] = old[source]
    return kept
