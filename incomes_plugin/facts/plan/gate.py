"""What N edits take of the fact gate's memory, from the entries of a sample: they are as many more in every unit."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from incomes_plugin.facts.gate.file import FactGate
from incomes_plugin.facts.gate.load import LISTED_SHARE, memory_bytes, next_size, refuse_entries, unit_room
from incomes_plugin.facts.gate.memory import FactMemory
from incomes_plugin.facts.gate.tally import Tally


@dataclass(frozen=True)
class GateNeeds:
    """What an edit set takes of the fact gate.

    Attributes:
        entries: gist entries.
        setting: the smallest `fact_gate_entries` that holds them safely.
        load: share of it that they take.
        num_bytes: of the memory.
    """

    entries: int
    setting: int
    load: float
    num_bytes: int


@dataclass(frozen=True)
class GateSample:
    """Entries of a sample of edits in a model's fact gate.

    Attributes:
        counts: `[F]`, entries that read back, by unit.
        unread: entries that do not, and every token would search.
    """

    counts: torch.Tensor
    unread: int

    @classmethod
    def of(cls, gate: FactGate, keys: torch.Tensor) -> GateSample:
        """Write keys `[n, R]` into a memory that has room for all of them in any unit."""
        units = gate.hidden.num_units
        empty = FactMemory.empty(gate, next_size(units * len(keys)), Tally())
        memory = empty.changed(range(len(keys)), keys, [], len(keys))
        return cls(memory.units[memory.units >= 0].bincount(minlength=units), memory.unread)

    @property
    def entries(self) -> int:
        """Of the sample."""
        return int(self.counts.sum()) + self.unread

    def listed(self, entries: int, capacity: int) -> int:
        """Of `entries` like these, how many every token would search: they are unread, or their unit is full."""
        more = entries / self.entries
        over = (self.counts * more - unit_room(capacity, len(self.counts))).clamp_min(0)
        return round(self.unread * more + float(over.sum()))

    def size_for(self, entries: int) -> int:
        """The smallest `fact_gate_entries` that holds them safely, a power of two."""
        capacity = next_size(entries)
        while self.listed(entries, capacity) > capacity // LISTED_SHARE:
            capacity *= 2
        return capacity

    def needs(self, entries: int) -> GateNeeds:
        """Its size for so many entries."""
        setting = self.size_for(entries)
        return GateNeeds(entries, setting, entries / setting, memory_bytes(setting, len(self.counts)))

    def refuse_beyond(self, entries: int, capacity: int) -> None:
        """As a commit would. Raises PoolFull."""
        listed, units = self.listed(entries, capacity), len(self.counts)
        refuse_entries(entries, listed, capacity, units, self.size_for(entries))
