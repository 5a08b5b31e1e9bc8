"""FactMemory: the memory of one snapshot. Written from gist keys alone, entry by entry; read with a token's direction.

    W [F, n], sparse: W[f, j] = 1 where entry j is written to unit f; kept as the places j of each unit, `[F, C]`
    read: the entries of the w units that a token excites, best first by their exact logits; C and w bound the cost

The value of an entry is its own place, so no two share one and nothing has to be decoded. What the memory would not
give back (a full unit, or a key whose question would not excite its unit) is on a list that every token searches.
Immutable, like the snapshot it belongs to; a commit lays out anew the units that it touches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from incomes_plugin.facts.gate.file import FactGate
from incomes_plugin.facts.gate.load import next_size, refuse_entries, unit_room
from incomes_plugin.facts.gate.tally import Tally

WORTH = 4
"""Below so many entries a unit on average, a search of all of them costs no more than the memory."""

_UNREAD = -1
_AT_ONCE = {"cpu": 1 << 21}
"""Numbers gathered at once, by device type."""

_MOST_AT_ONCE = 1 << 26


@dataclass(frozen=True)
class FactMemory:
    """See the module docstring.

    Attributes:
        gate: the model's.
        capacity: n that it holds safely, its constant size.
        units: `[n]` int64, unit of each entry; -1 = a question about it would not find it there.
        rows: `[F, C]` int32, entries of each unit, padded with -1.
        exact: `[e]` int64, entries that every token searches: unread ones, and those that found their unit full.
        width: most entries of a unit.
        tally: shared by all snapshots of a worker.
    """

    gate: FactGate
    capacity: int
    units: torch.Tensor
    rows: torch.Tensor
    exact: torch.Tensor
    width: int
    tally: Tally

    @classmethod
    def empty(cls, gate: FactGate, capacity: int, tally: Tally) -> FactMemory:
        """The memory of no edits, on the device of the gate."""
        device, units = gate.hidden.prototypes.device, gate.hidden.num_units
        rows = torch.full((units, unit_room(capacity, units)), -1, dtype=torch.int32, device=device)
        none = torch.empty(0, dtype=torch.int64, device=device)
        return cls(gate, capacity, none, rows, none, 0, tally)

    def threshold(self, num_edits: int) -> float:
        """See `FactGate.threshold_among`."""
        return self.gate.threshold_among(num_edits)

    @property
    def worth_it(self) -> bool:
        """Whether it is cheaper than a search of all entries."""
        return len(self.units) >= WORTH * self.gate.hidden.num_units

    @property
    def unread(self) -> int:
        """Entries that failed their read-back."""
        return int((self.units == _UNREAD).sum())

    def changed(
        self, places: Sequence[int], keys: torch.Tensor, moves: Sequence[tuple[int, int]], num_entries: int
    ) -> FactMemory:
        """The memory after a commit; every new entry has been read back.

        Args:
            places: of the new entries.
            keys: `[len(places), R]`, theirs.
            moves: (old place, new place) of entries that filled holes.
            num_entries: n after the commit.

        Raises:
            PoolFull: more than it holds safely; names the next size.
        """
        self._refuse(num_entries, 0)
        units = self.units.new_full((num_entries,), _UNREAD)
        kept = min(num_entries, len(self.units))
        units[:kept] = self.units[:kept]
        sources, targets = (self._index([move[i] for move in moves]) for i in (0, 1))
        units[targets] = self.units[sources]
        units[self._index(places)] = self._read_back(keys)
        gone = self.units[num_entries:] if len(self.units) > num_entries else self.units[:0]
        written = torch.cat([self._index(places), targets])
        before = self.units[written[written < len(self.units)]]
        touched = torch.cat([units[written], before, gone]).unique()
        rows, width, exact = self._laid_out(units, touched[touched >= 0])
        self._refuse(num_entries, len(exact))
        return replace(self, units=units, rows=rows, exact=exact, width=width)

    def find(self, directions: torch.Tensor, zero: torch.Tensor, keys: torch.Tensor, count: int) -> torch.Tensor:
        """Places `[T, count]` int64 of the best candidates, -1 where there are fewer.

        Args:
            directions: `[T, R]`.
            zero: `[T]`, their zero-gist's logit, before it grows with N.
            keys: `[n, R]`, of all entries.
        """
        excited, units = self.gate.hidden.read(directions)
        found = torch.full((len(directions), count), -1, dtype=torch.int64, device=directions.device)
        near = (excited[:, 0] - zero >= self.gate.reach).nonzero()[:, 0]
        self.tally.few += len(near)
        self.tally.none += len(directions) - len(near)
        rows = self.rows[:, : self.width].contiguous()
        found[near] = self._best(directions[near], rows, units[near], keys, count)
        if len(self.exact) and len(near) < len(directions):
            far = (excited[:, 0] - zero < self.gate.reach).nonzero()[:, 0]
            found[far] = self._best(directions[far], rows, units[far, :0], keys, count)
        return found

    def _best(
        self, directions: torch.Tensor, rows: torch.Tensor, units: torch.Tensor, keys: torch.Tensor, count: int
    ) -> torch.Tensor:
        """Best entries `[T, count]` among those of some units `[T, w]` and the list that every token searches."""
        if not len(directions):
            return units.new_empty(0, count)
        width = keys.shape[1] * max(1, units.shape[1] * rows.shape[1] + len(self.exact))
        step = max(1, _AT_ONCE.get(keys.device.type, _MOST_AT_ONCE) // width)
        parts = [
            self._best_at_once(some, rows, theirs, keys, count)
            for some, theirs in zip(directions.split(step), units.split(step), strict=True)
        ]
        return torch.cat(parts)

    def _best_at_once(
        self, directions: torch.Tensor, rows: torch.Tensor, units: torch.Tensor, keys: torch.Tensor, count: int
    ) -> torch.Tensor:
        tokens = len(directions)
        places = rows.index_select(0, units.flatten()).view(tokens, units.shape[1] * rows.shape[1]).long()
        places = torch.cat([places, self.exact.expand(tokens, -1)], dim=1)
        gathered = keys.index_select(0, places.clamp_min(0).flatten()).view(*places.shape, -1)
        logits = torch.bmm(gathered, directions.to(keys.dtype)[:, :, None])[:, :, 0]
        logits = logits.float().masked_fill(places < 0, -torch.inf)
        best = logits.topk(min(count, places.shape[1]), dim=1)
        found = places.gather(1, best.indices).masked_fill(best.values == -torch.inf, -1)
        return torch.nn.functional.pad(found, (0, count - found.shape[1]), value=-1)

    def _read_back(self, keys: torch.Tensor) -> torch.Tensor:
        """Unit of each new entry; -1 where the question that it is expected to answer would not read that unit."""
        hidden = self.gate.hidden
        if not len(keys):
            return self.units.new_empty(0)
        nearest = hidden.nearest(keys)
        _, read = hidden.read(hidden.expected(keys))
        return nearest.masked_fill(~(read == nearest[:, None]).any(dim=1), _UNREAD)

    def _laid_out(self, units: torch.Tensor, touched: torch.Tensor) -> tuple[torch.Tensor, int, torch.Tensor]:
        """Rows with the touched units laid out anew, the most entries of a unit, and the list for every token."""
        rows, room = self.rows.clone(), self.rows.shape[1]
        rows[touched] = -1
        members = torch.isin(units, touched).nonzero()[:, 0]
        theirs, order = units[members].sort(stable=True)
        members = members[order]
        counts = units[units >= 0].bincount(minlength=len(rows))
        place = torch.arange(len(members), device=units.device) - torch.searchsorted(theirs, theirs)
        fits = place < room
        rows[theirs[fits], place[fits]] = members[fits].int()
        listed = units >= 0
        if int(counts.max() if len(units) else 0) > room:
            within = torch.zeros_like(listed)
            within[rows[rows >= 0].long()] = True
            listed &= within
        return rows, min(room, int(counts.max()) if len(units) else 0), (~listed).nonzero()[:, 0]

    def _refuse(self, entries: int, listed: int) -> None:
        units, size = self.gate.hidden.num_units, next_size(entries, listed)
        refuse_entries(entries, listed, self.capacity, units, size)

    def _index(self, numbers: Sequence[int]) -> torch.Tensor:
        return torch.tensor(numbers, dtype=torch.int64, device=self.units.device)
