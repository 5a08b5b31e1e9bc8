"""Which entry slots a commit writes: pure arithmetic over the slots of the newest snapshot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from incomes_plugin.errors import SnapshotNotFound

EditKey = tuple[str, int]


@dataclass
class CommitPlan:
    """Slots of a commit.

    Attributes:
        num_entries: entries after it, the zero-gist included.
        has_zero: the snapshot is the first of its set, so the zero-gist is written to slot 0.
        incoming: slot of each new entry, in the order of the added gists (the zero-gist first, if any).
        moves: (old slot, new slot) of the tail entries that fill what holes remain.
        owner_of: edit version of every written slot.
    """

    num_entries: int
    has_zero: bool
    incoming: list[int]
    moves: list[tuple[int, int]]
    owner_of: dict[int, EditKey | None]
    _removed: Sequence[EditKey] = ()
    _added: dict[EditKey, list[int]] = field(default_factory=dict)

    def written_slots(self) -> Iterator[int]:
        """Every slot whose content changes."""
        yield from self.incoming
        yield from (target for _, target in self.moves)

    def apply(self, slots: dict[EditKey, list[int]]) -> None:
        """Bring the index edit version -> slots up to date."""
        for key in self._removed:
            del slots[key]
        for source, target in self.moves:
            owned = slots[self.owner_of[target]]  # type: ignore[index]
            owned[owned.index(source)] = target
        slots.update(self._added)


def plan_commit(
    slots: Mapping[EditKey, list[int]],
    num_entries: int,
    added: Sequence[tuple[EditKey, int]],
    removed: Sequence[EditKey],
    owner_at: Callable[[int], EditKey | None],
) -> CommitPlan:
    """Plan a commit: new entries fill the holes, then go to the end; left-over holes take the last entries.

    Args:
        slots: slots of every edit version in the snapshot before.
        num_entries: its entries with the zero-gist; 0 = there is none yet.
        added: (edit version, G).
        removed: edit versions.
        owner_at: edit version of a slot.

    Raises:
        SnapshotNotFound: an edit version is removed but absent, or added but present.
    """
    _check(slots, added, removed)
    holes = sorted(slot for key in removed for slot in slots[key])
    has_zero = num_entries == 0
    total = int(has_zero) + sum(size for _, size in added)
    incoming = holes[:total] + list(range(num_entries, num_entries + total - len(holes[:total])))
    left = set(holes[total:])
    after = num_entries + total - len(holes)
    tail = [slot for slot in range(after, num_entries) if slot not in left]
    moves = list(zip(tail, sorted(slot for slot in left if slot < after), strict=True))
    owners: list[EditKey | None] = [None] * int(has_zero) + [key for key, size in added for _ in range(size)]
    owner_of: dict[int, EditKey | None] = dict(zip(incoming, owners, strict=True))
    owner_of.update((target, owner_at(source)) for source, target in moves)
    placed: dict[EditKey, list[int]] = {}
    for slot, key in zip(incoming, owners, strict=True):
        if key is not None:
            placed.setdefault(key, []).append(slot)
    return CommitPlan(after, has_zero, incoming, moves, owner_of, removed, placed)


def _check(
    slots: Mapping[EditKey, list[int]], added: Sequence[tuple[EditKey, int]], removed: Sequence[EditKey]
) -> None:
    gone = set(removed)
    missing = [key for key in gone if key not in slots]
    if missing or len(gone) != len(removed):
        raise SnapshotNotFound(f"delta removes edit versions that the snapshot lacks: {missing or removed}")
    new = {key for key, _ in added}
    present = [key for key in new if key in slots and key not in gone]
    if present or len(new) != len(added):
        raise SnapshotNotFound(f"delta adds edit versions twice: {present or sorted(new)}")
