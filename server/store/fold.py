"""Sums up a part of the log: what a replica at its beginning must add and remove to reach its end."""

from __future__ import annotations

from incomes_plugin.gist.edit import EditKey


class Fold:
    """Net effect of additions and removals of edit versions.

    Added and removed again is nothing. Removed and added again is both (the gist may have been made anew), so whoever
    applies a fold removes first.
    """

    def __init__(self) -> None:
        self._before: dict[EditKey, bool] = {}
        self._after: dict[EditKey, int | None] = {}
        self.num_bytes = 0

    def apply(self, pair: EditKey, *, is_add: bool, num_bytes: int) -> None:
        """The next change of the log."""
        self._before.setdefault(pair, not is_add)
        self.num_bytes -= self._after.get(pair) or 0
        self._after[pair] = num_bytes if is_add else None
        self.num_bytes += num_bytes if is_add else 0

    def added(self) -> list[EditKey]:
        """Present at the end, and added on the way."""
        return [pair for pair, size in self._after.items() if size is not None]

    def removed(self) -> list[EditKey]:
        """Present at the start, and removed on the way."""
        return [pair for pair, present in self._before.items() if present]
