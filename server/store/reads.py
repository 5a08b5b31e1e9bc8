"""The threads in which the store reads, and which read waits for which others: a digest of 100,000 edits takes more
than a second, and neither a key nor a replica's poll nor an admission may wait for it.

query ──`_LANES`──► the lane of its kind, else the long one ──► a thread with a connection that cannot write
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from typing import Any

from incomes_server.store import (
    api_keys,
    batches,
    compared,
    counts,
    edit_sets,
    edits,
    evaluations,
    files,
    labels,
    log,
    membership,
    outcomes,
    requests,
    snapshots,
    switches,
    verbatims,
)


class Lane(StrEnum):
    """Reads that wait for each other."""

    SHORT = "short"
    """What a few rows say that an index finds: keys, single objects, news, times."""
    REPLICAS = "replicas"
    """Pages for replicas and comparisons: megabytes of gists."""
    ROOM = "room"
    """Sums over all edits, for admission and metrics."""
    LONG = "long"
    """All others: whole states of an edit set, pages with filters, exports."""


_THREADS = {Lane.SHORT: 1, Lane.REPLICAS: 1, Lane.ROOM: 1, Lane.LONG: 2}
_LANES: dict[Callable[..., Any], Lane] = {
    **dict.fromkeys((log.read_delta, labels.read_delta, compared.ready_gists), Lane.REPLICAS),
    **dict.fromkeys(
        (counts.use_of_projects, counts.use_of_labels, counts.count, labels.use_of_move), Lane.ROOM
    ),
    **dict.fromkeys(
        (
            api_keys.tenancy,
            api_keys.has_project,
            api_keys.limits_of,
            batches.get_batch,
            batches.lines_after,
            batches.unfinished,
            edit_sets.get_edit_set,
            edit_sets.news,
            edits.check_edits,
            edits.get_edit,
            edits.get_edits,
            evaluations.get_suite,
            evaluations.state_at,
            files.get_file,
            labels.get_label,
            labels.heads,
            labels.list_labels,
            labels.moves_of,
            membership.next_due_at,
            outcomes.pending_jobs,
            requests.has_request,
            snapshots.get_snapshot,
            switches.is_server_on,
            verbatims.get_verbatim,
            verbatims.verbatims_wait,
        ),
        Lane.SHORT,
    ),
}  # fmt: skip


class Readers:
    """One for an actor."""

    def __init__(self) -> None:
        self._threads = {lane: ThreadPoolExecutor(number, f"store-{lane}") for lane, number in _THREADS.items()}

    def of(self, query: Callable[..., Any]) -> ThreadPoolExecutor:
        """The threads that a query waits for."""
        return self._threads[_LANES.get(query, Lane.LONG)]

    def shutdown(self) -> None:
        """Wait for what is read, and end."""
        for threads in self._threads.values():
            threads.shutdown()
