"""`edits` of a request -> the snapshot that the whole request will use. Done once, before vLLM sees the request."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from incomes_server.api.chat.fields import EditsField
from incomes_server.api.http.readiness import Readiness
from incomes_server.store.directory import EditSetDirectory

from incomes_plugin.errors import EditSetNotFound, SnapshotEmpty, SnapshotNotFound, SnapshotRetired
from incomes_plugin.pool.snapshot import SnapshotRef

if TYPE_CHECKING:
    from incomes_plugin.vllm.engine import EditEngine


@dataclass(frozen=True)
class Resolved:
    """What a request may see.

    Attributes:
        snapshot: pinned for the whole request.
        reason: why this one, in OpenFeature's words: DEFAULT, TARGETING_MATCH (named), DISABLED (`mode: off`).
        trace: names the request in the engine when attribution is wanted, else None.
    """

    snapshot: SnapshotRef
    reason: str
    trace: str | None

    @property
    def headers(self) -> dict[str, str]:
        """Headers of every answer of a generation route."""
        return {
            "x-incomes-edit-set": self.snapshot.edit_set,
            "x-incomes-snapshot": self.snapshot.id,
            "x-incomes-edits": str(self.snapshot.num_edits),
        }


class ScopeResolver:
    """Resolves edit set and snapshot; refuses rather than answer with fewer edits than asked for."""

    def __init__(self, engine: EditEngine, directory: EditSetDirectory, readiness: Readiness) -> None:
        self._engine = engine
        self._directory = directory
        self._readiness = readiness

    async def resolve(self, project: str, field: EditsField | None, attributions: bool) -> Resolved:
        """Resolve the `edits` field of a request.

        Raises:
            NotReady, EngineLost: a part that edits need is missing, or the engine refuses a change of the set.
            EditSetNotFound, SnapshotNotFound, SnapshotRetired: what is named is not there.
            SnapshotEmpty: `mode: required`, and there is no edit.
        """
        self._readiness.require()
        wanted = field or EditsField()
        with field_at_fault("edits.edit_set"):
            edit_set = await self._directory.id_of(project, wanted.edit_set)
        trace = "trace_" + secrets.token_hex(12) if attributions else None
        if wanted.mode == "off":
            return Resolved(SnapshotRef.empty(edit_set), "DISABLED", trace)
        self._readiness.require_set(edit_set)
        snapshot = self._snapshot(edit_set, wanted.snapshot)
        if wanted.mode == "required" and snapshot.num_edits == 0:
            raise SnapshotEmpty("`mode: required`, and the snapshot has no edit", param="edits.mode")
        named = wanted.edit_set is not None or wanted.snapshot is not None
        return Resolved(snapshot, "TARGETING_MATCH" if named else "DEFAULT", trace)

    def loss(self) -> str | None:
        """Why nothing can be answered any more, or None."""
        return self._readiness.reasons()["engine"] if self._readiness.lost else None

    def _snapshot(self, edit_set: str, snapshot_id: str | None) -> SnapshotRef:
        empty = SnapshotRef.empty(edit_set)
        if snapshot_id is None:
            return self._engine.current(edit_set) or empty
        with field_at_fault("edits.snapshot"):
            return empty if snapshot_id == empty.id else self._engine.find(edit_set, snapshot_id)


@contextmanager
def field_at_fault(param: str) -> Iterator[None]:
    """Put the name of the request's field into errors that store and engine raise about its value."""
    try:
        yield
    except (EditSetNotFound, SnapshotNotFound, SnapshotRetired) as error:
        error.param = param
        raise
