"""GistPool: the gists of every edit set that requests may read. Host memory holds them all, the device what is picked.

in: deltas (gists to add, edit versions to remove) between two steps of the engine
out: immutable `PooledSnapshot`s, which requests hold while they run: route keys for routing, `PickedEdit`s for reading

A commit that only adds takes time in proportion to what it adds; one that removes also copies some lists of N items. It
builds the new state aside and switches to it with one assignment, so a commit that raises has changed nothing,
except that what its delta says is switched off is not read any more.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from incomes_plugin.errors import GistFormatError, PoolFull, SelectionFailed, SnapshotNotFound
from incomes_plugin.gist.edit import EditKey
from incomes_plugin.gist.types import Gist, Packed
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.pool.indexing import INDEX_FROM_EDITS, Indexer
from incomes_plugin.pool.lineage import Gone, Lineage
from incomes_plugin.pool.picked import PickedCache, PickedEdit
from incomes_plugin.pool.snapshot import SnapshotDelta, set_of
from incomes_plugin.pool.table import NO_EDIT, ROW_TOKENS, Charge, RouteTable, gist_rows
from incomes_plugin.selection.token_index import ArenaIndex

logger = logging.getLogger("incomes.pool")

MOVING = 2.5
"""Times that route keys are in memory at most, for admission: an arena that grows is read while its rows are copied,
and a third more of its rows may belong to edits that left."""


@dataclass(eq=False)
class PooledSnapshot:
    """One state of an edit set in the pool.

    Attributes:
        table: its edits and their route keys; emptied when nobody reads the snapshot any more.
        line: number of its lineage, which it shares with the snapshots before and after it.
        holders: requests that read it.
        version: of the edit set, when this state came about.
    """

    id: str
    edit_set: str
    num_edits: int
    table: RouteTable
    line: int
    holders: int = 0
    version: int = 0


@dataclass(frozen=True)
class PoolUsage:
    """Counters for status and metrics.

    Attributes:
        capacity_bytes: what `held_bytes` may reach.
        used_bytes: features, latents and route keys of every gist that a snapshot reaches, each counted once; a label's
            state that is not the newest one has route keys of its own.
        held_bytes: the same with whole arenas for route keys: rows without an edit, and room for more.
        edits: number of these gists.
        snapshots: resident ones.
        device_bytes_used: arenas, their indexes, and picked edits.
    """

    capacity_bytes: int
    used_bytes: int
    held_bytes: int
    edits: int
    snapshots: int
    device_bytes_used: int


@dataclass(frozen=True)
class _Head:
    """Newest snapshot of an edit set, and where in its table each edit version is.

    Attributes:
        rows: it may name edit versions that are not there: of a commit that failed. See `row_of`.
    """

    snapshot: PooledSnapshot
    rows: dict[EditKey, int]

    def row_of(self, edit: EditKey) -> int | None:
        """Row of an edit version in the table; None when it is not there."""
        row, edits = self.rows.get(edit), self.snapshot.table.edits
        return row if row is not None and row < len(edits) and edits[row] == edit else None


@dataclass(frozen=True)
class _State:
    """All that a commit or a retirement changes, replaced as a whole.

    Attributes:
        heads: by edit set.
        resident: snapshots that may be acquired, by id.
        leaving: snapshots that are no longer resident and that requests still hold, by identity.
        lineages: by number.
        latest: serial number of the newest gist.
        latest_line: number of the newest lineage.
        used_bytes, key_bytes: of all gists, and of their route keys alone.
        arena_bytes: of all arenas.
        edits: number of gists.
        shared: by serial number of a gist, how many lineages have it beside the first; route keys each has of its own.
    """

    heads: dict[str, _Head]
    resident: dict[str, PooledSnapshot]
    leaving: dict[int, PooledSnapshot]
    lineages: dict[int, Lineage]
    latest: int = 0
    latest_line: int = 0
    used_bytes: int = 0
    key_bytes: int = 0
    arena_bytes: int = 0
    edits: int = 0
    shared: Mapping[int, int] = field(default_factory=dict)

    @property
    def held_bytes(self) -> int:
        """Features, latents and arenas."""
        return self.used_bytes - self.key_bytes + self.arena_bytes

    def with_next(self, head: _Head, new: Sequence[Charge], left: tuple[Charge, ...]) -> _State:
        """With a snapshot more, the newest of its edit set."""
        state = self.with_snapshot(head.snapshot, new, left)
        return replace(state, heads={**self.heads, head.snapshot.edit_set: head})

    def with_branch(self, snapshot: PooledSnapshot, new: Sequence[Charge]) -> _State:
        """With a snapshot more, in a lineage of its own. Of its gists those that are not `new` are in others too."""
        state, added = self.with_snapshot(snapshot, new, ()), {charge.serial for charge in new}
        kept = [charge for charge in snapshot.table.charges if charge.serial not in added]
        key_bytes = sum(charge.key_bytes for charge in kept)
        more = {charge.serial: self.shared.get(charge.serial, 0) + 1 for charge in kept}
        return replace(
            state,
            used_bytes=state.used_bytes + key_bytes,
            key_bytes=state.key_bytes + key_bytes,
            shared={**self.shared, **more},
        )

    def with_snapshot(self, snapshot: PooledSnapshot, new: Sequence[Charge], left: tuple[Charge, ...]) -> _State:
        """With a snapshot more, behind those of its lineage."""
        lineage = self.lineages.get(snapshot.line, Lineage())
        has_arena = any(member.table.arena is snapshot.table.arena for member in lineage.living)
        latest = self.latest + len(new)
        return replace(
            self,
            resident={**self.resident, snapshot.id: snapshot},
            lineages={**self.lineages, snapshot.line: lineage.with_next(snapshot.table, latest, left)},
            latest=latest,
            latest_line=max(self.latest_line, snapshot.line),
            used_bytes=self.used_bytes + sum(charge.num_bytes for charge in new),
            key_bytes=self.key_bytes + sum(charge.key_bytes for charge in new),
            arena_bytes=self.arena_bytes + (0 if has_arena else snapshot.table.arena.nbytes),
            edits=self.edits + len(new),
        )

    def retired(self, snapshot: PooledSnapshot) -> tuple[_State, Gone | None]:
        """Without a resident snapshot, and what goes with it; None while requests hold it."""
        heads = {name: head for name, head in self.heads.items() if head.snapshot is not snapshot}
        resident = {name: found for name, found in self.resident.items() if found is not snapshot}
        state = replace(self, heads=heads, resident=resident)
        if snapshot.holders:
            return replace(state, leaving={**self.leaving, id(snapshot): snapshot}), None
        return state.without(snapshot)

    def without(self, snapshot: PooledSnapshot) -> tuple[_State, Gone]:
        """Without a snapshot that nobody reads any more, and what goes with it."""
        lineage, gone = self.lineages[snapshot.line].without(snapshot.table)
        lineages = {line: kept for line, kept in self.lineages.items() if line != snapshot.line}
        if lineage.living or any(head.snapshot.line == snapshot.line for head in self.heads.values()):
            lineages[snapshot.line] = lineage
        last = tuple(charge for charge in gone.charges if charge.serial not in self.shared)
        less = {
            charge.serial: self.shared[charge.serial] - 1 for charge in gone.charges if charge.serial in self.shared
        }
        key_bytes = sum(charge.key_bytes for charge in gone.charges)
        state = replace(
            self,
            leaving={key: held for key, held in self.leaving.items() if held is not snapshot},
            lineages=lineages,
            used_bytes=self.used_bytes - key_bytes - sum(charge.data_bytes for charge in last),
            key_bytes=self.key_bytes - key_bytes,
            arena_bytes=self.arena_bytes - gone.arena_bytes,
            edits=self.edits - len(last),
            shared={serial: more for serial, more in {**self.shared, **less}.items() if more} if less else self.shared,
        )
        return state, replace(gone, charges=last)


class GistPool:
    """See the module docstring.

    Args:
        adapter: whose gists these are; its tensors are on `device`.
        capacity_bytes: for features, latents, spellings and arenas of route keys. A commit that adds more than it
            removes keeps within; others always have room.
        device: where route keys and picked edits lie.
        dtype: compute dtype; route keys are bfloat16 if it is, else float32.
        device_bytes: for picked edits that no request holds.
        index_from_edits: edits of an edit set from which on its route keys get an index, on a CPU.
        kv_heads: that picked edits have here: those of this rank.
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
        kv_heads: slice = slice(None),
    ) -> None:
        self.adapter = adapter
        self.indexer = Indexer(index_from_edits)
        self.capacity_bytes = capacity_bytes
        self._picked = PickedCache(adapter.codec, adapter.copier, device_bytes, device, dtype, kv_heads)
        self._empty = RouteTable.empty(adapter.router.key.out_features, _key_dtype(dtype), device)
        self._row_bytes = _row_bytes(adapter, dtype)
        self._state = _State({}, {}, {}, {})
        self._barred: dict[str, frozenset[str]] = {}

    @torch.no_grad()
    def commit(self, delta: SnapshotDelta[Gist]) -> PooledSnapshot:
        """Make a snapshot from the edit set's newest one; one for a label from any that is resident.

        Raises:
            SnapshotNotFound: `delta.base` is not the newest snapshot of the set, or the delta does not fit it.
            GistFormatError: a gist of another shape.
            PoolFull: no room for what the commit adds beyond what it removes. In all cases nothing has changed, but
                that what the delta says is switched off is not read any more: a label's requests go on meanwhile.
        """
        if delta.label is not None:
            return self._branch(delta)
        self._barred[delta.snapshot.edit_set] = self._barred.get(delta.snapshot.edit_set, frozenset()).union(
            delta.barred
        )
        edit_set, snapshot_id, num_edits = delta.snapshot.edit_set, delta.snapshot.id, delta.snapshot.num_edits
        base, added, removed, ages, until = delta.base, delta.added, delta.removed, delta.ages, delta.until
        head = self._head(edit_set, base)
        removed_rows = self._check(head, num_edits, added, removed, {"ages": ages, "ends": until})
        state = self._state
        old = self._empty if head is None else head.snapshot.table
        line = state.latest_line + 1 if head is None else head.snapshot.line
        left = tuple(old.charges[row] for row in removed_rows)
        new = [self._charge(state.latest + 1 + i, gist) for i, gist in enumerate(added)]
        new_arena_rows = self._new_arena_rows(old, added, removed_rows, new, left)
        table, moves = old.changed(self.adapter.router, added, removed_rows, ages, until, new, new_arena_rows)
        rows = _rows_after({} if head is None else head.rows, table, removed, moves, len(added))
        snapshot = PooledSnapshot(snapshot_id, edit_set, num_edits, table, line, version=delta.snapshot.version)
        replaced, gone = state.resident.get(snapshot_id), None
        state = state.with_next(_Head(snapshot, rows), new, left)
        if replaced is not None:  # the same content came back: its newer copy is read from now on
            state, gone = state.retired(replaced)
        self._state = state
        self._barred[edit_set] = frozenset(delta.barred)
        self._tidy(snapshot, replaced, gone)
        return snapshot

    def newest(self, edit_set: str) -> PooledSnapshot | None:
        """The newest snapshot of an edit set; None while the pool has none."""
        head = self._state.heads.get(edit_set)
        return None if head is None else head.snapshot

    def acquire(self, snapshot_id: str) -> PooledSnapshot:
        """Hold a resident snapshot.

        Raises:
            SelectionFailed: it is not resident; the step must not go on without its edits.
        """
        snapshot = self._state.resident.get(snapshot_id)
        if snapshot is None:
            raise SelectionFailed(f"snapshot {snapshot_id} is not in this worker's pool")
        snapshot.holders += 1
        return snapshot

    def release(self, snapshot: PooledSnapshot) -> None:
        """Undo one `acquire`."""
        snapshot.holders -= 1
        if not snapshot.holders and id(snapshot) in self._state.leaving:
            self._state, gone = self._state.without(snapshot)
            self._let_go(snapshot, gone)

    def retire(self, snapshot_id: str) -> None:
        """Retire a snapshot: nobody can acquire it any more, and its gists are freed when the last holder lets go.
        Unknown ids are ignored."""
        snapshot = self._state.resident.get(snapshot_id)
        if snapshot is not None:
            self._state, gone = self._state.retired(snapshot)
            self._let_go(snapshot, gone)

    def forget(self, edit_set: str) -> None:
        """The edit set's next commit starts from nothing. Its snapshots stay until they are retired."""
        heads = {name: head for name, head in self._state.heads.items() if name != edit_set}
        if set_of(edit_set) != edit_set:  # a copy; what is switched off in a set stays so while requests read it
            self._barred.pop(edit_set, None)
        self._state = replace(self._state, heads=heads)

    def may_read(self, snapshot: PooledSnapshot, row: int, at_s: int) -> bool:
        """Whether a request that came at that second may read the edit in a row of a snapshot's table: it has not ended
        by then, and is not switched off now, in the edit set whose state this is or is a copy of."""
        table = snapshot.table
        barred = self._barred.get(set_of(snapshot.edit_set))
        return table.ends[row] > at_s and not (barred and table.edits[row][0] in barred)

    def picked(self, snapshot: PooledSnapshot, row: int) -> PickedEdit:
        """The edit in a row of a snapshot's table, on the device for as long as the caller holds it."""
        return self._picked.get(snapshot.table.charges[row].serial, snapshot.table.gists[row])

    def usage(self) -> PoolUsage:
        """Counters."""
        state = self._state
        snapshots = [*state.resident.values(), *state.leaving.values()]
        indexes = {snapshot.table.index for snapshot in snapshots}
        device_bytes = state.arena_bytes + _index_bytes(indexes) + self._picked.used_bytes
        return PoolUsage(
            self.capacity_bytes, state.used_bytes, state.held_bytes, state.edits, len(state.resident), device_bytes
        )

    def _branch(self, delta: SnapshotDelta[Gist]) -> PooledSnapshot:
        """A state of an edit set beside its newest one. It shares the gists of the snapshot that it is made from; the
        route keys it has twice. Where the state is resident already there is nothing to do."""
        state, edit_set, num_edits = self._state, delta.snapshot.edit_set, delta.snapshot.num_edits
        if (found := state.resident.get(delta.snapshot.id)) is not None:
            return found
        base = None if delta.base is None else state.resident.get(delta.base)
        if delta.base is not None and (base is None or base.edit_set != edit_set):
            raise SnapshotNotFound(f"delta of {delta.key} starts at {delta.base}, which is not in the pool")
        old = self._empty if base is None else base.table.alone()
        head = None if base is None else _Head(base, {edit: row for row, edit in enumerate(old.edits)})
        removed_rows = self._check(
            head, num_edits, delta.added, delta.removed, {"ages": delta.ages, "ends": delta.until}
        )
        new = [self._charge(state.latest + 1 + i, gist) for i, gist in enumerate(delta.added)]
        arena_rows = old.owned_after(delta.added, removed_rows)
        needed = sum(charge.data_bytes for charge in new) + arena_rows * self._row_bytes
        if needed > self.capacity_bytes - state.held_bytes:
            raise self._full(needed)
        table, _ = old.changed(self.adapter.router, delta.added, removed_rows, delta.ages, delta.until, new, arena_rows)
        snapshot = PooledSnapshot(delta.snapshot.id, edit_set, num_edits, table, state.latest_line + 1)
        self._state = state.with_branch(snapshot, new)
        self._tidy(snapshot, None, None)
        return snapshot

    def _full(self, needed: int) -> PoolFull:
        return PoolFull(
            f"the gist pool needs {needed} bytes more, and as many as its edit set has of route keys while these "
            f"move, and holds {self._state.held_bytes} of {self.capacity_bytes}; retire edits or raise pool_bytes"
        )

    def _head(self, edit_set: str, base: str | None) -> _Head | None:
        head = self._state.heads.get(edit_set)
        newest = None if head is None else head.snapshot.id
        if newest != base:
            raise SnapshotNotFound(f"delta of {edit_set} starts at {base}, the pool is at {newest}")
        return head

    def _check(
        self,
        head: _Head | None,
        num_edits: int,
        added: Sequence[Gist],
        removed: Sequence[EditKey],
        given: Mapping[str, Sequence[object]],
    ) -> list[int]:
        """Rows of the removed edits. Raises if the delta does not fit the snapshot that it starts from, or a gist does
        not fit the adapter."""
        gone, new = set(removed), {gist.edit for gist in added}
        rows = {edit: None if head is None else head.row_of(edit) for edit in gone | new}
        missing = {edit for edit in gone if rows[edit] is None}
        if missing or len(gone) != len(removed):
            raise SnapshotNotFound(f"delta removes edit versions that the snapshot lacks: {sorted(missing or gone)}")
        present = {edit for edit in new - gone if rows[edit] is not None}
        if present or len(new) != len(added):
            raise SnapshotNotFound(f"delta adds edit versions twice: {sorted(present or new)}")
        after = (0 if head is None else head.snapshot.num_edits) + len(added) - len(removed)
        if num_edits != after:
            raise SnapshotNotFound(f"delta leads to {after} edits, not {num_edits}")
        for name, values in given.items():
            if values and len(values) != len(added):
                raise SnapshotNotFound(f"delta has {len(values)} {name} for {len(added)} gists")
        for gist in added:
            self._check_shape(gist)
        return [row for edit in removed if (row := rows[edit]) is not None]

    def _check_shape(self, gist: Gist) -> None:
        shape, tokens = self.adapter.shape, gist.num_tokens
        for name, expected in (("features", (tokens, shape.feature_dim)), ("latents", (tokens, shape.latent_dim))):
            part: Packed = getattr(gist, name)
            if not tokens or part.data.shape != expected or part.scale.shape != expected[:-1]:
                raise GistFormatError(
                    f"{name} of the gist of {gist.edit_id} have shape {tuple(part.data.shape)}, expected {expected} "
                    "with at least one token; compress the edit again"
                )

    def _charge(self, serial: int, gist: Gist) -> Charge:
        key_bytes = gist_rows(gist) * self._row_bytes
        return Charge(serial, gist.num_bytes + key_bytes, key_bytes)

    def _new_arena_rows(
        self,
        old: RouteTable,
        added: Sequence[Gist],
        removed_rows: Sequence[int],
        new: Sequence[Charge],
        left: Sequence[Charge],
    ) -> int:
        """Rows of a new arena for the commit's table, 0 when the old one goes on.

        Raises:
            PoolFull: the commit adds more than it removes, and does not fit.
        """
        state = self._state
        data = sum(charge.data_bytes for charge in new)
        free = self.capacity_bytes - state.held_bytes - data
        rows = old.new_arena_rows(added, removed_rows, max(0, free) // self._row_bytes)
        wanted = sum(charge.num_bytes for charge in new)
        if wanted <= sum(charge.num_bytes for charge in left):
            return old.new_arena_rows(added, removed_rows, NO_EDIT) or 0 if rows is None else rows
        if rows is None or free < 0:
            raise self._full(wanted)
        return rows

    def _tidy(self, snapshot: PooledSnapshot, replaced: PooledSnapshot | None, gone: Gone | None) -> None:
        """The commit is done, and nothing that fails from here on undoes it: edits without an index are compared."""
        try:
            self._let_go(replaced, gone)
            self.indexer.follow(snapshot.table)
        except (RuntimeError, MemoryError):
            logger.exception("no index grows for the edits of %s", snapshot.edit_set)

    def _let_go(self, snapshot: PooledSnapshot | None, gone: Gone | None) -> None:
        """The pool is without them: drop what else holds their memory."""
        if snapshot is None or gone is None:
            return
        snapshot.table = self._empty
        for charge in gone.charges:
            self._picked.drop(charge.serial)


def room_for(adapter: EditAdapter, dtype: torch.dtype, num_edits: int, num_tokens: int) -> int:
    """Bytes that `num_edits` edits of `num_tokens` tokens together take in a pool at most, with spellings of ordinary
    size (`SPELLED_PER_TOKEN`).

    Their route keys count `MOVING` times.

    Args:
        dtype: compute dtype.
    """
    rows = num_tokens // ROW_TOKENS + num_edits
    return num_tokens * adapter.shape.room_per_token + math.ceil(MOVING * rows * _row_bytes(adapter, dtype))


def _index_bytes(indexes: Iterable[ArenaIndex]) -> int:
    """Bytes of the indexes. Arenas between which an index has moved share it, and it is counted once."""
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
    """Row of each edit version in the table after a commit. Only one that removes copies: see `_Head.row_of`."""
    after = dict(rows) if removed else rows
    for edit in removed:
        del after[edit]
    changed = [*moves.values(), *range(len(table.edits) - num_added, len(table.edits))]
    after.update((table.edits[row], row) for row in changed)
    return after
