"""GistPool: every snapshot's entries in copy-on-write pages, one buffer for all gist layers, allocated once.

in: deltas (gists to add, edit versions to remove); out: immutable `PooledSnapshot`s whose page tables attention reads.
An entry is one gist token; entry 0 of every snapshot is the zero-gist with value 0. A commit copies only the pages it
changes: an append writes behind what older snapshots can see, a removal moves the last entry into the hole. With a
router tokens gather their own entries (`entries`), not the backend: there every entry lies in one piece.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from incomes_plugin.errors import GistFormatError, PoolFull, SelectionFailed, SnapshotNotFound
from incomes_plugin.facts.gate.memory import FactMemory
from incomes_plugin.gist.types import Gist
from incomes_plugin.pool.layout import PageLayout
from incomes_plugin.pool.plan import CommitPlan, EditKey, plan_commit
from incomes_plugin.pool.routes import RouteTable

Pages = npt.NDArray[np.int64]


@dataclass(eq=False)
class PooledSnapshot:
    """One immutable state of an edit set in the pool.

    Attributes:
        num_entries: entries to attend to, the zero-gist included.
        pages: page of every `page_size` entries.
        block_table: `[num_pages]` int32 on the device.
        routes: of a pool with a router.
        holders: requests and traces that still read it.
        resident: False once retired; its pages go back when the last holder leaves.
    """

    id: str
    edit_set: str
    num_edits: int
    num_entries: int
    pages: Pages
    block_table: torch.Tensor
    routes: RouteTable | None = None
    holders: int = 0
    resident: bool = True


@dataclass
class _Head:
    snapshot: PooledSnapshot
    slots: dict[EditKey, list[int]]


@dataclass
class PoolUsage:
    """Counters for status and metrics."""

    capacity_gists: int
    free_gists: int
    snapshots: int
    page_size: int


@dataclass
class GistPool:
    """See the module docstring.

    Attributes:
        storage: `[L', P, page_numel]` in the compute dtype, zero at first.
        layout: where an entry's numbers lie in a page; with a router it is replaced by `PageLayout.by_entry`.
        zero_keys: `[L', K, D]`.
        max_gists: largest G of an edit, for a model with a router; None without one.
        memory: of no edits, for a model with a fact gate; every edit set's own starts from it.
    """

    storage: torch.Tensor
    layout: PageLayout
    zero_keys: torch.Tensor
    max_gists: int | None = None
    memory: FactMemory | None = None
    _free: list[int] = field(init=False)
    _refs: Pages = field(init=False)
    _visible: Pages = field(init=False)
    _owners: dict[int, list[EditKey | None]] = field(init=False, default_factory=dict)
    _heads: dict[str, _Head] = field(init=False, default_factory=dict)
    _resident: dict[str, PooledSnapshot] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        if self.max_gists is not None:
            size, kv_heads, dim = self.layout.keys.shape
            self.layout = PageLayout.by_entry((size, kv_heads, dim), self.storage.device)
        num_pages = self.storage.shape[1]
        self._free = list(range(num_pages - 1, -1, -1))
        self._refs = np.zeros(num_pages, np.int64)
        self._visible = np.zeros(num_pages, np.int64)  # entries of the page some snapshot could see: not writable

    def commit(
        self,
        edit_set: str,
        base: str | None,
        snapshot_id: str,
        num_edits: int,
        added: Sequence[Gist],
        removed: Sequence[EditKey],
        ages: Sequence[int] = (),
    ) -> PooledSnapshot:
        """Make a snapshot from the edit set's newest one. Cost grows with the delta, not with the set.

        Args:
            ages: see `SnapshotDelta`.

        Raises:
            SnapshotNotFound: `base` is not the newest snapshot of the set, or the delta does not fit it.
            GistFormatError: a gist of another shape.
            PoolFull: too few free pages, or too many entries for the fact gate. In all cases nothing has changed.
        """
        head = self._head(edit_set, base)
        slots = {} if head is None else head.slots
        old = np.empty(0, np.int64) if head is None else head.snapshot.pages
        num_entries = 0 if head is None else head.snapshot.num_entries
        plan = plan_commit(slots, num_entries, self._sizes(added), removed, lambda slot: self._owner(old, slot))
        if num_edits != len(slots) + len(added) - len(removed):
            raise SnapshotNotFound(f"delta leads to {len(slots) + len(added) - len(removed)} edits, not {num_edits}")
        if ages and len(ages) != len(added):
            raise SnapshotNotFound(f"delta has {len(ages)} ages for {len(added)} gists")
        memory = self._memory(head, plan, added)
        table = self._new_table(old, plan)
        self._write(old, table, plan, added)
        snapshot = self._publish(edit_set, snapshot_id, num_edits, plan.num_entries, table)
        plan.apply(slots)
        snapshot.routes = self._routes(head, plan, slots, added, removed, ages, memory)
        self._heads[edit_set] = _Head(snapshot, slots)
        return snapshot

    def acquire(self, snapshot_id: str) -> PooledSnapshot:
        """Hold a resident snapshot.

        Raises:
            SelectionFailed: it is not resident; the step must not go on without its edits.
        """
        snapshot = self._resident.get(snapshot_id)
        if snapshot is None:
            raise SelectionFailed(f"snapshot {snapshot_id} is not in this worker's pool")
        snapshot.holders += 1
        return snapshot

    def release(self, snapshot: PooledSnapshot) -> None:
        """Undo one `acquire`."""
        snapshot.holders -= 1
        self._reclaim(snapshot)

    def retire(self, snapshot_id: str) -> None:
        """Let go of a snapshot: no new holder; pages return with the last one. Unknown ids are ignored."""
        snapshot = self._resident.pop(snapshot_id, None)
        if snapshot is not None:
            head = self._heads.get(snapshot.edit_set)
            if head is not None and head.snapshot is snapshot:
                del self._heads[snapshot.edit_set]
            snapshot.resident = False
            self._reclaim(snapshot)

    def forget(self, edit_set: str) -> None:
        """Drop the edit set's index; its next commit starts from nothing. Snapshots stay until retired."""
        self._heads.pop(edit_set, None)

    def places(self, snapshot: PooledSnapshot, slots: torch.Tensor) -> torch.Tensor:
        """Where entries lie, given their slots `[...]` in a snapshot, in every layer alike; slot -1 gives any place."""
        size = self.layout.page_size
        slots = slots.clamp_min(0)
        return snapshot.block_table[slots // size] * size + slots % size

    def entries(self, layer: int, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values `[T, k, G, K, D]` at the places `[T, k, G]`, of a pool with a router.

        They are views of `[T, K, k, G, D]` in memory: every head's entries follow each other, as products want them.
        """
        _, kv_heads, dim = self.layout.keys.shape
        heads = torch.arange(2 * kv_heads, device=places.device).view(2, 1, kv_heads, 1, 1)
        rows = places[:, None] * (2 * kv_heads) + heads
        found = self.storage[layer].view(-1, dim).index_select(0, rows.flatten()).view(*rows.shape, dim)
        keys, values = found.permute(0, 1, 3, 4, 2, 5)
        return keys, values

    def read_keys(self, layer: int, snapshot: PooledSnapshot) -> torch.Tensor:
        """Keys `[n + 1, K, D]` of a snapshot, zero-gist first (attribution only: a copy)."""
        places = self._places(snapshot.pages, np.arange(snapshot.num_entries), self.layout.keys)
        return self.storage[layer].view(-1)[places]

    def owners(self, snapshot: PooledSnapshot) -> Iterator[EditKey | None]:
        """The edit version of each entry, None for the zero-gist."""
        size = self.layout.page_size
        for i, page in enumerate(snapshot.pages.tolist()):
            yield from self._owners[page][: min(size, snapshot.num_entries - i * size)]

    def usage(self) -> PoolUsage:
        """Counters."""
        size = self.layout.page_size
        return PoolUsage(len(self._refs) * size, len(self._free) * size, len(self._resident), size)

    def fact_gate(self) -> dict[str, int]:
        """Counters of the fact gate: tokens by what was said to them, and entries of the newest snapshots by where
        they are found. Empty without one."""
        if self.memory is None:
            return {}
        tables = [head.snapshot.routes for head in self._heads.values()]
        memories = [table.memory for table in tables if table is not None and table.memory is not None]
        unread, exact = sum(m.unread for m in memories), sum(len(m.exact) for m in memories)
        entries = {"memory": sum(len(m.units) for m in memories) - exact, "unread": unread, "full": exact - unread}
        return {**{f"tokens_{name}": count for name, count in asdict(self.memory.tally).items()}, **entries}

    def _head(self, edit_set: str, base: str | None) -> _Head | None:
        head = self._heads.get(edit_set)
        if (head.snapshot.id if head else None) != base:
            raise SnapshotNotFound(
                f"delta of {edit_set} starts at {base}, the pool is at {head.snapshot.id if head else None}"
            )
        return head

    def _routes(
        self,
        head: _Head | None,
        plan: CommitPlan,
        slots: dict[EditKey, list[int]],
        added: Sequence[Gist],
        removed: Sequence[EditKey],
        ages: Sequence[int],
        memory: FactMemory | None,
    ) -> RouteTable | None:
        if self.max_gists is None:
            return None
        table = None if head is None else head.snapshot.routes
        if table is None:
            table = RouteTable.empty(self.zero_keys[0].numel(), self.max_gists, self.storage)
        moved = {key for _, slot in plan.moves if (key := plan.owner_of[slot]) is not None}
        return table.changed(added, removed, slots, plan.moves, moved, plan.num_entries, ages, memory)

    def _memory(self, head: _Head | None, plan: CommitPlan, added: Sequence[Gist]) -> FactMemory | None:
        """The fact memory after the commit; entry j lies in slot j + 1."""
        if self.memory is None:
            return None
        table = None if head is None else head.snapshot.routes
        before = self.memory if table is None or table.memory is None else table.memory
        places = [slot - 1 for slot in plan.incoming if slot]
        keys = [gist.keys[0].flatten(1).to(self.storage) for gist in added]
        moves = [(source - 1, target - 1) for source, target in plan.moves]
        wanted = torch.cat(keys) if keys else self.storage.new_empty(0, self.zero_keys[0].numel())
        return before.changed(places, wanted, moves, plan.num_entries - 1)

    def _new_table(self, old: Pages, plan: CommitPlan) -> Pages:
        """Page table of the new snapshot: shared pages, copies of changed ones, fresh ones at the end."""
        size = self.layout.page_size
        table = np.full(-(-plan.num_entries // size), -1, np.int64)
        table[: min(len(old), len(table))] = old[: len(table)]
        lowest: dict[int, int] = {}
        for slot in plan.written_slots():
            lowest[slot // size] = min(slot % size, lowest.get(slot // size, size))
        shared = [p for p, low in lowest.items() if p < len(old) and low < self._visible[old[p]]]
        fresh = range(len(old), len(table))
        if len(shared) + len(fresh) > len(self._free):
            raise PoolFull(
                f"the gist pool needs {(len(shared) + len(fresh)) * size} entries more and has "
                f"{len(self._free) * size} of {len(self._refs) * size}; retire edits or raise pool_gists"
            )
        for p in (*shared, *fresh):
            table[p] = self._free.pop()
            self._owners[int(table[p])] = list(self._owners[int(old[p])]) if p < len(old) else []
        if shared:
            self.storage[:, table[shared]] = self.storage[:, old[shared]]
        return table

    def _write(self, old: Pages, table: Pages, plan: CommitPlan, added: Sequence[Gist]) -> None:
        flat = self.storage.view(self.storage.shape[0], -1)
        sources = np.array([source for source, _ in plan.moves], np.int64)
        slots = np.array([*plan.incoming, *(target for _, target in plan.moves)], np.int64)
        if not len(slots):
            return
        zero = [self.zero_keys[:, None]] if plan.has_zero else []
        kinds = (
            (self.layout.keys, [*zero, *(g.keys for g in added)]),
            (self.layout.values, [*(torch.zeros_like(z) for z in zero), *(g.values for g in added)]),
        )
        for offsets, incoming in kinds:
            moved = flat[:, self._places(old, sources, offsets)]
            new = [part.to(flat.device, flat.dtype) for part in incoming]
            flat[:, self._places(table, slots, offsets)] = torch.cat([*new, moved], dim=1)
        self._write_owners(table, plan)

    def _write_owners(self, table: Pages, plan: CommitPlan) -> None:
        size = self.layout.page_size
        for slot, owner in plan.owner_of.items():
            owners = self._owners[int(table[slot // size])]
            owners.extend([None] * (slot % size + 1 - len(owners)))
            owners[slot % size] = owner

    def _places(self, pages: Pages, slots: Pages, offsets: torch.Tensor) -> torch.Tensor:
        """Positions `[E, K, D]` of entries in the flat storage of a layer."""
        size = self.layout.page_size
        page = torch.from_numpy(pages[slots // size] * self.layout.page_numel).to(offsets.device)
        return page[:, None, None] + offsets[torch.from_numpy(slots % size).to(offsets.device)]

    def _publish(
        self, edit_set: str, snapshot_id: str, num_edits: int, num_entries: int, table: Pages
    ) -> PooledSnapshot:
        size = self.layout.page_size
        self._refs[table] += 1
        self._retire_duplicate(snapshot_id)
        fill = np.minimum(size, num_entries - np.arange(len(table)) * size)
        self._visible[table] = np.maximum(self._visible[table], fill)
        block_table = torch.from_numpy(table.astype(np.int32)).to(self.storage.device)
        snapshot = PooledSnapshot(snapshot_id, edit_set, num_edits, num_entries, table, block_table)
        self._resident[snapshot_id] = snapshot
        return snapshot

    def _retire_duplicate(self, snapshot_id: str) -> None:
        """A set that returns to an earlier content has an earlier id: the older copy makes room."""
        older = self._resident.pop(snapshot_id, None)
        if older is not None:
            older.resident = False
            self._reclaim(older)

    def _reclaim(self, snapshot: PooledSnapshot) -> None:
        if snapshot.resident or snapshot.holders:
            return
        self._refs[snapshot.pages] -= 1
        for page in snapshot.pages[self._refs[snapshot.pages] == 0].tolist():
            self._visible[page] = 0
            del self._owners[page]
            self._free.append(page)
        snapshot.pages = np.empty(0, np.int64)

    def _owner(self, pages: Pages, slot: int) -> EditKey | None:
        return self._owners[int(pages[slot // self.layout.page_size])][slot % self.layout.page_size]

    def _sizes(self, gists: Sequence[Gist]) -> list[tuple[EditKey, int]]:
        layers, *heads = self.zero_keys.shape
        for gist in gists:
            expected = (layers, gist.num_gists, *heads)
            if gist.keys.shape != expected or gist.values.shape != expected:
                raise GistFormatError(f"gist of {gist.edit_id} has shape {tuple(gist.keys.shape)}, expected {expected}")
            if self.max_gists is not None and gist.num_gists > self.max_gists:
                raise GistFormatError(f"gist of {gist.edit_id} has {gist.num_gists} entries, at most {self.max_gists}")
        return [((g.edit_id, g.version), g.num_gists) for g in gists]
