"""RouteTable: what routing sees of one snapshot. Immutable; `changed` makes the next snapshot's table from it.

Route keys lie in an arena `[capacity, W, R]` that the snapshots of an edit set share, as they share the lists of edits.
A commit that only adds writes the rows of new edits behind all rows in use, and takes time in proportion to them. A
commit that removes copies the lists; the rows of removed edits stay where they are and lose their owner. When the arena
is full, or more than a quarter of the rows has no owner, the rows that have one move to a new arena. A large arena has
an index (`indexing.py`). It takes in new rows some time later, and moves with the rows to a new arena.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import NamedTuple, TypeVar, overload

import torch

from incomes_plugin.gist.edit import EditKey
from incomes_plugin.gist.types import Gist
from incomes_plugin.selection.routing import RouteKeys, Router
from incomes_plugin.selection.token_index import ArenaIndex

ROW_TOKENS = 16
"""W, tokens in a row; a longer edit takes several rows."""

SPARE_SHARE = 8
"""A new arena has one row in so many more than it needs. Doubling would save copies and cost memory."""

NO_END = 2**63 - 1
"""Of an edit that does not expire."""

NO_EDIT = torch.iinfo(torch.int64).max
"""Owner of a row without one."""

_Item = TypeVar("_Item")


class Charge(NamedTuple):
    """What one gist in the pool costs.

    Attributes:
        serial: number of the gist; a later one has a larger number, and no two gists of a pool have the same.
        num_bytes: of features, latents, spelling and route keys.
        key_bytes: of route keys alone.
    """

    serial: int
    num_bytes: int
    key_bytes: int

    @property
    def data_bytes(self) -> int:
        """Of features, latents and spelling."""
        return self.num_bytes - self.key_bytes


class SharedList(Sequence[_Item]):
    """The beginning of a list that later snapshots go on with.

    Args:
        items: what lies behind the first `length` belongs to later snapshots, or to a commit that failed.
    """

    __slots__ = ("_items", "_length")

    def __init__(self, items: list[_Item], length: int) -> None:
        self._items = items
        self._length = length

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, place: int) -> _Item: ...

    @overload
    def __getitem__(self, place: slice) -> list[_Item]: ...

    def __getitem__(self, place: int | slice) -> _Item | list[_Item]:
        if isinstance(place, slice):
            return [self._items[i] for i in range(*place.indices(self._length))]
        if not 0 <= place < self._length:
            raise IndexError(f"{place} of {self._length}")
        return self._items[place]

    def __iter__(self) -> Iterator[_Item]:
        return islice(self._items, self._length)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def after(self, moves: Mapping[int, int], left: int, added: Sequence[_Item]) -> SharedList[_Item]:
        """The list after a commit: those that stay, in their new rows, and those that are added.

        Nothing is copied where all stay. Only the newest snapshot of an edit set has a next one; the empty table has
        one of every set.
        """
        items = self._items
        if left < self._length or not self._length:
            items = items[:left]
            for source, target in moves.items():
                items[target] = self._items[source]
        else:
            del items[left:]  # of a commit that failed
        items.extend(added)
        return SharedList(items, left + len(added))


@dataclass(frozen=True, eq=False)
class RouteTable:
    """Edits of a snapshot, one row each, in no particular order.

    Attributes:
        keys: route keys; the owner of a row is an edit's row in this table, or `NO_EDIT`.
        edits: edit version in each row.
        gists: its gist.
        ages: of two edits that contradict each other the one with the larger age counts as the later.
        ends: unix second from which on no request reads it, or `NO_END`.
        charges: what each gist costs.
        num_verbatim: edits among them whose gists are never read.
        next_age: age of the next edit whose age is not given.
        owned_rows: rows of `keys` that have an owner.
        arena: `[capacity, W, R]`; `keys.keys` is the beginning of it.
        owners: `[capacity]` int64; `keys.owners` is the beginning of it.
    """

    keys: RouteKeys
    edits: SharedList[EditKey]
    gists: SharedList[Gist]
    ages: SharedList[int]
    ends: SharedList[int]
    charges: SharedList[Charge]
    num_verbatim: int
    next_age: int
    owned_rows: int
    arena: torch.Tensor
    owners: torch.Tensor

    @classmethod
    def empty(cls, route_dim: int, dtype: torch.dtype, device: torch.device) -> RouteTable:
        """The table of no edits."""
        arena = torch.empty(0, ROW_TOKENS, route_dim, dtype=dtype, device=device)
        owners = torch.empty(0, dtype=torch.int64, device=device)
        return cls(
            keys=RouteKeys(arena, owners, 0, ArenaIndex()),
            edits=SharedList([], 0),
            gists=SharedList([], 0),
            ages=SharedList([], 0),
            ends=SharedList([], 0),
            charges=SharedList([], 0),
            num_verbatim=0,
            next_age=0,
            owned_rows=0,
            arena=arena,
            owners=owners,
        )

    @property
    def index(self) -> ArenaIndex:
        """The arena's index, or None; snapshots share it as they share the arena."""
        assert self.keys.index is not None
        return self.keys.index

    def features_of(self, row: int) -> torch.Tensor:
        """Features `[E, F]` float32 of the edit in a row, on the device."""
        return self.gists[row].features.unpack(self.arena.device)

    def age_of(self, row: int) -> int:
        """Age of the edit in a row."""
        return self.ages[row]

    def alone(self) -> RouteTable:
        """The same table with lists that no other one shares, so that it may change although it is not the newest."""
        edits, gists, ages, ends, charges = (
            SharedList(list(items), len(items))
            for items in (self.edits, self.gists, self.ages, self.ends, self.charges)
        )
        return replace(self, edits=edits, gists=gists, ages=ages, ends=ends, charges=charges)  # type: ignore[arg-type]

    def new_arena_rows(self, added: Sequence[Gist], removed_rows: Sequence[int], room: int) -> int | None:
        """Rows of the arena that a commit moves the route keys to; 0: they stay in this one; None: no room.

        Args:
            room: rows that a new arena may have.
        """
        new = sum(map(gist_rows, added))
        owned = self.owned_after(added, removed_rows)
        needed = len(self.keys.keys) + new
        must_grow = needed > len(self.arena)
        if not must_grow and 4 * (needed - owned) <= needed:
            return 0
        rows = min(with_spare(owned), room)
        if rows >= owned:
            return rows
        return None if must_grow else 0

    def changed(
        self,
        router: Router,
        added: Sequence[Gist],
        removed_rows: Sequence[int],
        ages: Sequence[int],
        until: Sequence[int | None],
        charges: Sequence[Charge],
        new_arena_rows: int,
    ) -> tuple[RouteTable, dict[int, int]]:
        """The table after a commit, and the new rows of the edits that moved: edits from the end of the table fill the
        holes that removed ones leave.

        Args:
            removed_rows: rows in this table of the edits that leave.
            ages: of the added gists; none: each is later than all before it.
            until: of the added gists; none: they have no end.
            charges: of the added gists.
            new_arena_rows: see the method of that name.
        """
        ages = list(ages) or list(range(self.next_age, self.next_age + len(added)))
        ends = [NO_END if end is None else end for end in until or [None] * len(added)]
        left = len(self.edits) - len(removed_rows)
        moves = _moves(len(self.edits), left, removed_rows)
        start, keys, owners, index = self._moved(removed_rows, moves, left, new_arena_rows)
        for number, gist in enumerate(added, start=left):
            end = start + gist_rows(gist)
            keys[start:end] = route_rows(router, gist)
            owners[start:end] = number
            start = end
        table = RouteTable(
            keys=RouteKeys(keys[:start], owners[:start], left + len(added), index),
            edits=self.edits.after(moves, left, [gist.edit for gist in added]),
            gists=self.gists.after(moves, left, added),
            ages=self.ages.after(moves, left, ages),
            ends=self.ends.after(moves, left, ends),
            charges=self.charges.after(moves, left, charges),
            num_verbatim=self.num_verbatim
            + sum(gist.verbatim for gist in added)
            - sum(self.gists[row].verbatim for row in removed_rows),
            next_age=max([self.next_age - 1, *ages]) + 1,
            owned_rows=self.owned_after(added, removed_rows),
            arena=keys,
            owners=owners,
        )
        return table, moves

    def owned_after(self, added: Sequence[Gist], removed_rows: Sequence[int]) -> int:
        """Rows of route keys that have an owner after a commit."""
        return self.owned_rows + sum(map(gist_rows, added)) - sum(gist_rows(self.gists[row]) for row in removed_rows)

    def _moved(
        self, removed_rows: Sequence[int], moves: Mapping[int, int], left: int, new_arena_rows: int
    ) -> tuple[int, torch.Tensor, torch.Tensor, ArenaIndex]:
        """Rows that are seen already, arena, its owners and its index, before the added gists are written."""
        arena, owners, index, start = self.arena, self.owners, self.index, len(self.keys.keys)
        if removed_rows:
            owners = self._owners_after(removed_rows, moves, left)
        if new_arena_rows:
            kept = owners[:start] != NO_EDIT
            old, old_owners = arena[:start][kept], owners[:start][kept]
            start = len(old)
            arena = arena.new_empty(new_arena_rows, *arena.shape[1:])
            owners = owners.new_full((new_arena_rows,), NO_EDIT)
            arena[:start], owners[:start] = old, old_owners
            index = index.moved(kept)
        return start, arena, owners, index

    def _owners_after(self, removed_rows: Sequence[int], moves: Mapping[int, int], left: int) -> torch.Tensor:
        """Owners of the rows of the arena after edits have left and others have filled their places."""
        start = len(self.keys.keys)
        renamed = torch.arange(len(self.edits) + 1, device=self.owners.device)
        renamed[[*removed_rows, len(self.edits)]] = NO_EDIT
        if moves:
            renamed[list(moves)] = torch.tensor(list(moves.values()), device=self.owners.device)
        owners = torch.full_like(self.owners, NO_EDIT)
        owners[:start] = renamed[self.owners[:start].clamp(max=len(self.edits))]
        return owners


def with_spare(rows: int) -> int:
    """Rows of a new arena that so many rows move to, where there is room."""
    return rows + rows // SPARE_SHARE + 1


def gist_rows(gist: Gist) -> int:
    """Rows of route keys that a gist takes."""
    return -(-gist.num_tokens // ROW_TOKENS)


def route_rows(router: Router, gist: Gist) -> torch.Tensor:
    """Route keys `[rows, W, R]` float32 of a gist; the last row repeats the last token.

    They are computed for one gist at a time, so that they are the same to the bit whatever else a commit adds.
    """
    keys = router.route_keys(gist.features.unpack(router.key.weight.device))
    padding = keys[-1:].expand(gist_rows(gist) * ROW_TOKENS - len(keys), -1)
    return torch.cat([keys, padding]).unflatten(0, (-1, ROW_TOKENS))


def _moves(num_edits: int, left: int, removed_rows: Sequence[int]) -> dict[int, int]:
    """Old row -> new row of the edits that stay and lie behind the first `left` rows: they fill the holes."""
    removed = set(removed_rows)
    movers = [row for row in range(left, num_edits) if row not in removed]
    return dict(zip(movers, sorted(row for row in removed if row < left), strict=True))
