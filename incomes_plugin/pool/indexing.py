"""Indexer: makes an index of the route keys of each big table and lets it grow, in a thread of its own.

in: the tables of new snapshots; out: nothing that a commit or a request waits for. Routing compares every row that the
index does not hold yet, so no edit is ever missed: a thread that is late or fails costs only time.
"""

from __future__ import annotations

import threading

from incomes_plugin.pool.table import RouteTable
from incomes_plugin.selection.token_index import ArenaIndex

INDEX_FROM_EDITS = 50_000
"""Edit sets of this size and more get an index. Below it, comparing all edits takes at most about 40 ms of one core."""

_MOST_LATE_ROWS = 1024
_MOST_LATE_SHARE = 64
"""An index grows when it lacks more rows than the number above and more than one row in this many. Comparing those rows
takes about a millisecond."""


class Indexer:
    """See the module docstring.

    Args:
        from_edits: tables of fewer edits get no index.
    """

    def __init__(self, from_edits: int) -> None:
        self._from_edits = from_edits
        self._changed = threading.Condition()
        self._waiting: dict[ArenaIndex, RouteTable] = {}  # the newest table of each arena
        self._thread: threading.Thread | None = None

    def follow(self, table: RouteTable) -> None:
        """Called after each commit with the new table, whose rows are written and do not change any more.

        Raises:
            RuntimeError: the system starts no thread. Nothing depends on it; the next commit tries again.
        """
        if not self._is_due(table):
            return
        with self._changed:
            self._waiting[table.index] = table
            if self._thread is None:
                thread = threading.Thread(target=self._work, name="route index", daemon=True)
                thread.start()
                self._thread = thread

    def wait(self) -> None:
        """Return when every index that is due has grown."""
        with self._changed:
            self._changed.wait_for(lambda: self._thread is None)

    def _is_due(self, table: RouteTable) -> bool:
        """Whether the index should grow. On a GPU never: comparing all edits is quicker there than asking the host."""
        if table.keys.num_edits < self._from_edits or table.arena.device.type != "cpu":
            return False
        covered = table.index.covered
        return len(table.keys.keys) - covered > max(_MOST_LATE_ROWS, covered // _MOST_LATE_SHARE)

    def _work(self) -> None:
        try:
            while (table := self._next()) is not None:
                table.index.grow(table.keys.keys)
        except BaseException:  # its traceback goes to the log, and the next commit tries again
            with self._changed:
                self._ends()
            raise

    def _next(self) -> RouteTable | None:
        with self._changed:
            if self._waiting:
                return self._waiting.popitem()[1]
            self._ends()  # under the same lock as the look, so that `follow` starts another thread
            return None

    def _ends(self) -> None:
        self._thread = None
        self._changed.notify_all()
