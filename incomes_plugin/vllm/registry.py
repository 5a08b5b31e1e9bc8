"""Which snapshots the engine holds and which requests read them, as the server's process knows it.

A request pins a snapshot on its way in (`pin.py`); it has left when vLLM's output processor no longer knows its id. A
snapshot that is neither current nor pinned may be retired on the workers. It is used on the event loop only and needs
no locks.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager

from incomes_plugin.errors import SnapshotNotFound, SnapshotRetired
from incomes_plugin.pool.snapshot import SnapshotRef, set_of
from incomes_plugin.selection.question import PromptTemplate

_MAX_REMEMBERED = 4096
_SWEEP_EVERY = 256


class SnapshotRegistry:
    """See the module docstring.

    Args:
        live_requests: returns the ids of the requests the output processor knows.
        template: how the base frames texts; `pin.py` finds the question of a prompt by it.
    """

    def __init__(self, live_requests: Callable[[], Container[str]], template: PromptTemplate) -> None:
        self.template = template
        self._live_requests = live_requests
        self._current: dict[str, SnapshotRef] = {}
        self._resident: dict[str, SnapshotRef] = {}
        self._retired: OrderedDict[str, str] = OrderedDict()
        self._pins: dict[str, set[str]] = {}
        self._held: Counter[str] = Counter()
        self._off: dict[str, str] = {}
        self._verbatim: set[str] = set()
        self._sweep_at = _SWEEP_EVERY

    def current(self, key: str) -> SnapshotRef | None:
        """Newest committed snapshot of an edit set, or the one at a label (`label_key`)."""
        return self._current.get(key)

    def holds(self, snapshot: SnapshotRef) -> bool:
        """Whether it may be pinned as it is."""
        return snapshot.num_edits == 0 or snapshot.id in self._resident

    def find(self, edit_set: str, snapshot_id: str) -> SnapshotRef:
        """A snapshot new requests may pin: the current one, or an older one that is still pinned.

        Raises:
            SnapshotRetired: the engine held it once.
            SnapshotNotFound: it never did, or it belongs to another edit set.
        """
        found = self._resident.get(snapshot_id)
        if found is not None and found.edit_set == edit_set:
            return found
        if self._retired.get(snapshot_id) == edit_set:
            raise SnapshotRetired(f"snapshot {snapshot_id} is retired; use the current one")
        raise SnapshotNotFound(f"no snapshot {snapshot_id} in edit set {edit_set}")

    def pin(self, request_id: str, snapshot: SnapshotRef) -> None:
        """Keep the snapshot until the request leaves. Raises as `find` does."""
        self.find(snapshot.edit_set, snapshot.id)
        self._pins.setdefault(request_id, set()).add(snapshot.id)
        if len(self._pins) > self._sweep_at:
            self._drop_dead_pins()
            self._sweep_at = 2 * len(self._pins) + _SWEEP_EVERY

    @contextmanager
    def hold(self, snapshot: SnapshotRef) -> Iterator[None]:
        """Keep a snapshot inside the block, so that a request can still pin it. Raises as `find` does."""
        self.find(snapshot.edit_set, snapshot.id)
        self._held[snapshot.id] += 1
        try:
            yield
        finally:
            self._held[snapshot.id] -= 1
            self._held += Counter()  # drops what is held no more

    def marked(self, snapshot: SnapshotRef, verbatim: bool) -> None:
        """Whether there are verbatim edits in a snapshot that the workers have now."""
        (self._verbatim.add if verbatim else self._verbatim.discard)(snapshot.id)

    def has_verbatim(self, snapshot: SnapshotRef) -> bool:
        """The same again."""
        return snapshot.id in self._verbatim

    def committed(self, snapshot: SnapshotRef, key: str | None = None) -> None:
        """The snapshot is on all ranks and becomes the current one of its set, or of the label `key`."""
        self._current[key or snapshot.edit_set] = snapshot
        self._resident[snapshot.id] = snapshot
        self._retired.pop(snapshot.id, None)

    def switched(self, edit_set: str, off: str | None) -> None:
        """Whose switch takes all edits from the set's requests from now on."""
        if off is None:
            self._off.pop(edit_set, None)
        else:
            self._off[edit_set] = off

    def off(self, edit_set: str) -> str | None:
        """The same again; None: nobody's. A copy of a state of the set follows the set."""
        return self._off.get(set_of(edit_set))

    def dropped(self, key: str) -> None:
        """The set, or label, has no current snapshot any more; pinned ones stay until their requests leave."""
        self._current.pop(key, None)
        self._off.pop(key, None)

    def unused(self, keep: str | None = None) -> list[str]:
        """Ids of the snapshots that are not current, pinned, held or in `keep`. From now on nobody can pin them."""
        self._drop_dead_pins()
        used = {snapshot_id for ids in self._pins.values() for snapshot_id in ids}
        used |= self._held.keys() | {snapshot.id for snapshot in self._current.values()}
        gone = [snapshot_id for snapshot_id in self._resident if snapshot_id not in used and snapshot_id != keep]
        for snapshot_id in gone:
            self._retired[snapshot_id] = self._resident.pop(snapshot_id).edit_set
            self._verbatim.discard(snapshot_id)
        while len(self._retired) > _MAX_REMEMBERED:
            self._retired.popitem(last=False)
        return gone

    @property
    def num_superseded(self) -> int:
        """Resident snapshots that are not current."""
        return len(self._resident.keys() - {snapshot.id for snapshot in self._current.values()})

    @property
    def num_pinned_requests(self) -> int:
        """Requests in flight that read a pool."""
        self._drop_dead_pins()
        return len(self._pins)

    @property
    def pinned_by_set(self) -> dict[str, int]:
        """The same by edit set."""
        self._drop_dead_pins()
        pinned = (snapshot_id for ids in self._pins.values() for snapshot_id in ids)
        return dict(Counter(self._resident[snapshot_id].edit_set for snapshot_id in pinned))

    @property
    def edit_sets(self) -> dict[str, SnapshotRef]:
        """Current snapshot of every set."""
        return {key: snapshot for key, snapshot in self._current.items() if key == snapshot.edit_set}

    def _drop_dead_pins(self) -> None:
        live = self._live_requests()
        self._pins = {request_id: ids for request_id, ids in self._pins.items() if request_id in live}
