"""GistPool: the gists of every edit set that requests may read. Host memory holds them all, the device what is picked.

in: deltas (gists to add, edit versions to remove) between two steps of the engine
out: immutable `PooledSnapshot`s, which requests hold while they run: route keys for routing, `PickedEdit`s for reading

A commit costs what it changes, plus a copy of some lists of N items. It builds everything aside and switches it in at
the end: one that raises has changed nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from incomes_plugin.errors import GistFormatError, PoolFull, SelectionFailed, SnapshotNotFound
from incomes_plugin.gist.edit import EditKey
from incomes_plugin.gist.types import Gist, Packed
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.pool.indexing import INDEX_FROM_EDITS, Indexer
from incomes_plugin.pool.lineage import Lineage
from incomes_plugin.pool.picked import PickedCache, PickedEdit
from incomes_plugin.pool.snapshot import SnapshotDelta
from incomes_plugin.pool.table import ROW_TOKENS, Charge, RouteTable, rows_of
from incomes_plugin.selection.token_index import ArenaIndex

logger = logging.getLogger("incomes.pool")


@dataclass(eq=False)
class PooledSnapshot:
    """One state of an edit set in the pool.

    Attributes:
        table: its edits and their route keys; empty once nobody reads the snapshot any more.
        lineage: the snapshots before and after it.
        holders: requests and traces that read it.
        resident: False once retired; its gists go when the last holder leaves.
    """

    id: str
    edit_set: str
    num_edits: int
    table: RouteTable
    lineage: Lineage
    holders: int = 0
    resident: bool = True


@dataclass(frozen=True)
class PoolUsage:
    """Counters for status and metrics.

    Attributes:
        capacity_bytes: what `used_bytes` may reach.
        used_bytes: features, latents and route keys of every gist that a snapshot reaches, each counted once.
        edits: number of these gists.
        snapshots: resident ones.
        device_bytes_used: arenas of route keys (with the room in them that is not used yet), their indexes, and picked
            edits.
    """

    capacity_bytes: int
    used_bytes: int
    edits: int
    snapshots: int
    device_bytes_used: int


@dataclass(frozen=True)
class _Head:
    """Newest snapshot of an edit set, and the row of each edit version in its table."""

    snapshot: PooledSnapshot
    rows: dict[EditKey, int]


class GistPool:
    """See the module docstring.

    Args:
        adapter: whose gists these are; its tensors are on `device`.
        capacity_bytes: for features, latents and route keys.
        device: where route keys and picked edits lie.
        dtype: compute dtype; route keys are bfloat16 if it is, else float32.
        device_bytes: for picked edits that no request holds.
        index_from_edits: edits of an edit set from which on its route keys get an index, on a CPU.
    """

    def __init__(
        self,
        adapter: EditAdapter,
        *,
        capacity_bytes: int,
        device: torch.device,
        dtype: torch.dtype,
        device_bytes: int = 256 << 20,
        index_from_edits: int = INDEX_FROM_EDITS,
    ) -> None:
        self.adapter = adapter
        self.indexer = Indexer(index_from_edits)
        self.capacity_bytes = capacity_bytes
        self._picked = PickedCache(adapter.codec, device_bytes, device, dtype)
        self._empty = RouteTable.empty(adapter.router.key.out_features, _key_dtype(dtype), device)
        self._row_bytes = _row_bytes(adapter, dtype)
        self._heads: dict[str, _Head] = {}
        self._resident: dict[str, PooledSnapshot] = {}
        self._retired: list[PooledSnapshot] = []  # that requests still hold
        self._latest = 0  # serial number of the newest gist
        self._used_bytes = 0
        self._edits = 0

    @torch.no_grad()
    def commit(self, delta: SnapshotDelta[Gist]) -> PooledSnapshot:
        """Make a snapshot from the edit set's newest one.

        Raises:
            SnapshotNotFound: `delta.base` is not the newest snapshot of the set, or the delta does not fit it.
            GistFormatError: a gist of another shape.
            PoolFull: no room for what the commit adds beyond what it removes. In all cases nothing has changed.
        """
        edit_set, snapshot_id, num_edits = delta.snapshot.edit_set, delta.snapshot.id, delta.snapshot.num_edits
        base, added, removed, ages = delta.base, delta.added, delta.removed, delta.ages
        head = self._head(edit_set, base)
        rows = {} if head is None else head.rows
        self._check(rows, num_edits, added, removed, ages)
        old = self._empty if head is None else head.snapshot.table
        removed_rows = [rows[edit] for edit in removed]
        left = [old.charges[row] for row in removed_rows]
        new = [Charge(self._latest + 1 + i, self._bytes_of(gist)) for i, gist in enumerate(added)]
        self._check_room(new, left)
        table, moves = old.changed(self.adapter.router, added, removed_rows, ages, new)
        rows = _rows_after(rows, table, removed, moves, len(added))
        lineage = Lineage() if head is None else head.snapshot.lineage
        snapshot = PooledSnapshot(snapshot_id, edit_set, num_edits, table, lineage)
        return self._publish(_Head(snapshot, rows), new, left)

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
        if not snapshot.resident and not snapshot.holders:
            self._retired.remove(snapshot)
            self._reclaim(snapshot)

    def retire(self, snapshot_id: str) -> None:
        """Let go of a snapshot: no new holder; its gists go with the last one. Unknown ids are ignored."""
        snapshot = self._resident.pop(snapshot_id, None)
        if snapshot is None:
            return
        head = self._heads.get(snapshot.edit_set)
        if head is not None and head.snapshot is snapshot:
            del self._heads[snapshot.edit_set]
        snapshot.resident = False
        if snapshot.holders:
            self._retired.append(snapshot)
        else:
            self._reclaim(snapshot)

    def forget(self, edit_set: str) -> None:
        """The edit set's next commit starts from nothing. Its snapshots stay until they are retired."""
        self._heads.pop(edit_set, None)

    def picked(self, snapshot: PooledSnapshot, row: int) -> PickedEdit:
        """The edit in a row of a snapshot's table, on the device for as long as the caller holds it."""
        return self._picked.get(snapshot.table.charges[row].serial, snapshot.table.gists[row])

    def usage(self) -> PoolUsage:
        """Counters."""
        snapshots = [*self._resident.values(), *self._retired]
        arenas = {snapshot.table.index: snapshot.table.arena.nbytes for snapshot in snapshots}
        device_bytes = sum(arenas.values()) + _index_bytes(arenas) + self._picked.used_bytes
        return PoolUsage(self.capacity_bytes, self._used_bytes, self._edits, len(self._resident), device_bytes)

    def _head(self, edit_set: str, base: str | None) -> _Head | None:
        head = self._heads.get(edit_set)
        newest = None if head is None else head.snapshot.id
        if newest != base:
            raise SnapshotNotFound(f"delta of {edit_set} starts at {base}, the pool is at {newest}")
        return head

    def _check(
        self,
        rows: dict[EditKey, int],
        num_edits: int,
        added: Sequence[Gist],
        removed: Sequence[EditKey],
        ages: Sequence[int],
    ) -> None:
        """Raise where a delta does not fit the snapshot that it starts from, or a gist does not fit the adapter."""
        gone, new = set(removed), {gist.edit for gist in added}
        missing = gone - rows.keys()
        if missing or len(gone) != len(removed):
            raise SnapshotNotFound(f"delta removes edit versions that the snapshot lacks: {sorted(missing or gone)}")
        present = new & (rows.keys() - gone)
        if present or len(new) != len(added):
            raise SnapshotNotFound(f"delta adds edit versions twice: {sorted(present or new)}")
        after = len(rows) + len(added) - len(removed)
        if num_edits != after:
            raise SnapshotNotFound(f"delta leads to {after} edits, not {num_edits}")
        if ages and len(ages) != len(added):
            raise SnapshotNotFound(f"delta has {len(ages)} ages for {len(added)} gists")
        for gist in added:
            self._check_shape(gist)

    def _check_shape(self, gist: Gist) -> None:
        shape, tokens = self.adapter.shape, gist.num_tokens
        for name, expected in (("features", (tokens, shape.feature_dim)), ("latents", (tokens, shape.latent_dim))):
            part: Packed = getattr(gist, name)
            if not tokens or part.data.shape != expected or part.scale.shape != expected[:-1]:
                raise GistFormatError(
                    f"{name} of the gist of {gist.edit_id} have shape {tuple(part.data.shape)}, expected {expected} "
                    "with at least one token; compress the edit again"
                )

    def _bytes_of(self, gist: Gist) -> int:
        return gist.num_bytes + rows_of(gist) * self._row_bytes

    def _check_room(self, new: Sequence[Charge], left: Sequence[Charge]) -> None:
        wanted = sum(charge.num_bytes for charge in new)
        if wanted > sum(charge.num_bytes for charge in left) and self._used_bytes + wanted > self.capacity_bytes:
            raise PoolFull(
                f"the gist pool needs {wanted} bytes more and uses {self._used_bytes} of {self.capacity_bytes}; "
                "retire edits or raise pool_bytes"
            )

    def _publish(self, head: _Head, new: Sequence[Charge], left: list[Charge]) -> PooledSnapshot:
        """Switch a new snapshot in. An older one of the same id, whose content is the same, makes room."""
        snapshot, new_bytes = head.snapshot, sum(charge.num_bytes for charge in new)
        snapshot.lineage.append(snapshot.table, self._latest + len(new), left)
        self._latest += len(new)
        self._edits += len(new)
        self._used_bytes += new_bytes
        self._heads[snapshot.edit_set] = head
        self.retire(snapshot.id)
        self._resident[snapshot.id] = snapshot
        try:
            self.indexer.follow(snapshot.table)
        except (RuntimeError, MemoryError):  # the commit is done: its edits are compared exactly
            logger.exception("no index grows for the edits of %s", snapshot.edit_set)
        return snapshot

    def _reclaim(self, snapshot: PooledSnapshot) -> None:
        for charge in snapshot.lineage.remove(snapshot.table):
            self._edits -= 1
            self._used_bytes -= charge.num_bytes
            self._picked.drop(charge.serial)
        snapshot.table = self._empty


def room_for(adapter: EditAdapter, dtype: torch.dtype, num_edits: int, num_tokens: int) -> int:
    """Bytes that `num_edits` edits of `num_tokens` tokens together take in a pool at most: `GistPool` counts the same.

    Args:
        dtype: compute dtype.
    """
    rows = num_tokens // ROW_TOKENS + num_edits
    return num_tokens * adapter.shape.bytes_per_token + rows * _row_bytes(adapter, dtype)


def _index_bytes(indexes: Iterable[ArenaIndex]) -> int:
    """Bytes of indexes; arenas that one moved between share it."""
    rows = [index.rows for index in indexes if index.rows is not None]
    return sum({id(held.index): held.index.num_bytes for held in rows}.values()) + sum(h.places.nbytes for h in rows)


def _key_dtype(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype == torch.bfloat16 else torch.float32


def _row_bytes(adapter: EditAdapter, dtype: torch.dtype) -> int:
    """Bytes of one row of route keys."""
    return ROW_TOKENS * int(adapter.router.key.out_features) * _key_dtype(dtype).itemsize


def _rows_after(
    rows: dict[EditKey, int], table: RouteTable, removed: Sequence[EditKey], moves: dict[int, int], num_added: int
) -> dict[EditKey, int]:
    """Row of each edit version in the table after a commit."""
    after = dict(rows)
    for edit in removed:
        del after[edit]
    changed = [*moves.values(), *range(len(table.edits) - num_added, len(table.edits))]
    after.update((table.edits[row], row) for row in changed)
    return after
