"""What there is to follow: the newest version of every edit set and the newest move of every label. In memory and pure.

The actor answers polls from it without SQL. A key with `@` is a label's (`label_key`), any other an edit set's id.
"""

from __future__ import annotations

from collections.abc import Mapping

from incomes_server.store.edit_sets import SetHead

_NOTHING = SetHead(0, deleted=True)


class StoreHeads:
    """See the module docstring.

    Attributes:
        known: all, deleted ones too.
        live: keys of those that are not deleted.
    """

    def __init__(self) -> None:
        self.known: dict[str, SetHead] = {}
        self.live: set[str] = set()
        self._stuck: dict[str, tuple[int, int]] = {}

    @property
    def versions(self) -> dict[str, int]:
        """Of those that are live."""
        return {key: self.known[key].version for key in self.live}

    def merge(self, heads: Mapping[str, SetHead]) -> None:
        """Keep the larger version of each: an answer that was read before a commit and arrives after it must not move
        the head back. What is deleted stays so at its version; a label may come back with a larger one."""
        for key, head in heads.items():
            newest = max(self.known.get(key, head), head, key=lambda each: (each.version, each.deleted))
            self.known[key] = newest
            (self.live.discard if newest.deleted else self.live.add)(key)

    def ahead(self, positions: Mapping[str, int]) -> list[str]:
        """Where a replica claims more than there is."""
        return [key for key, version in positions.items() if version > self.known.get(key, _NOTHING).version]

    def behind(self, positions: Mapping[str, int], *, refused: Mapping[str, int], serving: bool) -> list[str]:
        """What has news for a replica. What is deleted has, until the replica has let go of it. Labels come before edit
        sets: what they start from must not have moved on.

        Args:
            refused: moves of labels, and versions, that the replica said it cannot apply.
            serving: one that catches up gets an edit set first, in pages, and does not wait for labels that it
                refuses.
        """
        gone = [key for key in positions if key in self.known and key not in self.live]
        behind = [key for key in sorted(self.live) if self.known[key].version > positions.get(key, 0)]
        labels = [key for key in behind if "@" in key and self._stuck.get(key) != self._state(key)]
        if not serving:
            labels = [key for key in labels if self._may_catch_up(key, positions, refused)]
        return gone + labels + [key for key in behind if "@" not in key]

    def cannot_follow(self, label: str, move: int) -> None:
        """Gists of the label's state are missing: it is tried again when label or edit set have moved."""
        self._stuck[label] = move, self._state(label)[1]

    def _state(self, label: str) -> tuple[int, int]:
        return self.known[label].version, self.known[label.partition("@")[0]].version

    def _may_catch_up(self, label: str, positions: Mapping[str, int], refused: Mapping[str, int]) -> bool:
        move, version = self._state(label)
        return positions.get(label.partition("@")[0], 0) == version and refused.get(label) != move
