"""`edits` of a request -> the snapshot that the whole request will use. Done once, before vLLM sees the request."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from incomes_server.api.chat.fields import EditsField
from incomes_server.api.http.readiness import Readiness
from incomes_server.store.directory import EditSetDirectory

from incomes_plugin.errors import (
    EditsDisabled,
    EditSetNotFound,
    InvalidValue,
    LabelNotFound,
    NotReady,
    SnapshotEmpty,
    SnapshotNotFound,
    SnapshotRetired,
)
from incomes_plugin.pool.snapshot import SnapshotRef, label_key

if TYPE_CHECKING:
    from incomes_plugin.vllm.engine import EditEngine

MIN_VERSION = "x-incomes-min-version"
MIN_VERSION_WAIT_S = 5.0
"""So long a request waits for an engine that is behind the version that the caller has written."""
LOOK_EVERY_S = 0.02


@dataclass(frozen=True)
class Resolved:
    """What a request may see.

    Attributes:
        snapshot: pinned for the whole request.
        reason: why this one, in OpenFeature's words: DEFAULT, TARGETING_MATCH (named), DISABLED (`mode: off`).
        trace: names the request in the engine when attribution is wanted, else None.
        label: by which the snapshot was named.
        off: whose switch took the edits away: `edit_set` or `server`.
    """

    snapshot: SnapshotRef
    reason: str
    trace: str | None
    label: str | None = None
    off: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        """Headers of every answer of a generation route."""
        said = {"x-incomes-label": self.label, "x-incomes-disabled": self.off}
        return {
            **{name: value for name, value in said.items() if value is not None},
            "x-incomes-edit-set": self.snapshot.edit_set,
            "x-incomes-snapshot": self.snapshot.id,
            "x-incomes-version": str(self.snapshot.version),
            "x-incomes-edits": str(self.snapshot.num_edits),
        }


class ScopeResolver:
    """Resolves edit set and snapshot; refuses rather than answer with fewer edits than asked for."""

    def __init__(self, engine: EditEngine, directory: EditSetDirectory, readiness: Readiness) -> None:
        self._engine = engine
        self._directory = directory
        self._readiness = readiness

    async def resolve(
        self, project: str, field: EditsField | None, attributions: bool, min_version: str | None = None
    ) -> Resolved:
        """Resolve the `edits` field of a request.

        Args:
            min_version: header of that name: the version of the edit set that the caller has written.

        Raises:
            InvalidValue: `min_version` is no version of the edit set, or the request names another state.
            NotReady, EngineLost: a part that edits need is missing, or the engine refuses a change of the set.
            EditSetNotFound, LabelNotFound, SnapshotNotFound: what is named is not there.
            SnapshotRetired: the snapshot is there, and neither the newest one nor at a label.
            SnapshotEmpty: `mode: required`, and there is no edit.
            EditsDisabled: edits are switched off, and the request requires them or names a state.
        """
        self._readiness.require()
        wanted = field or EditsField()
        with field_at_fault("edits.edit_set"):
            edit_set = await self._directory.id_of(project, wanted.edit_set)
        trace = "trace_" + secrets.token_hex(12) if attributions else None
        if wanted.mode == "off":
            return Resolved(SnapshotRef.empty(edit_set), "DISABLED", trace)
        if min_version is not None:
            await self._await_version(project, edit_set, wanted, min_version)
            self._readiness.require()  # it may have waited for seconds
        named = any(each is not None for each in (wanted.edit_set, wanted.label, wanted.snapshot))
        if (off := self._engine.off(edit_set)) is not None:
            return self._without(edit_set, wanted, trace, off)
        self._readiness.require_set(edit_set if wanted.label is None else label_key(edit_set, wanted.label))
        snapshot = await self._snapshot(project, edit_set, wanted)
        if wanted.mode == "required" and snapshot.num_edits == 0:
            raise SnapshotEmpty("`mode: required`, and the snapshot has no edit", param="edits.mode")
        return Resolved(snapshot, "TARGETING_MATCH" if named else "DEFAULT", trace, wanted.label)

    async def _await_version(self, project: str, edit_set: str, wanted: EditsField, text: str) -> None:
        """Wait until this engine has the version. Raises NotReady when it has not in time."""
        if not (text.isascii() and text.isdecimal() and len(text) < 19) or wanted.label or wanted.snapshot:
            raise InvalidValue(
                f"the header takes the `set_version` of an edit, a number, and goes with the newest state of an edit "
                f"set, not with `label` or `snapshot`; got {text[:32]!r}",
                param=MIN_VERSION,
            )
        version, end_s = int(text), time.monotonic() + MIN_VERSION_WAIT_S
        while self._version_of(edit_set) < version:
            if time.monotonic() >= end_s:
                newest = (await self._directory.store.get_edit_set(project, edit_set)).snapshot.version
                if newest < version:
                    raise InvalidValue(f"the edit set is at version {newest}", param=MIN_VERSION)
                raise NotReady(f"this engine has version {self._version_of(edit_set)} of the edit set, not {version}")
            await asyncio.sleep(LOOK_EVERY_S)

    def _version_of(self, edit_set: str) -> int:
        found = self._engine.current(edit_set)
        return 0 if found is None else found.version

    def _without(self, edit_set: str, wanted: EditsField, trace: str | None, off: str) -> Resolved:
        """A request whose edits are switched off: what leaves the choice to the server is answered without, and the
        answer says so; the others are refused."""
        if wanted.mode == "required" or wanted.label is not None or wanted.snapshot is not None:
            whose = "this server" if off == "server" else "this edit set"
            raise EditsDisabled(
                f"all edits of {whose} are switched off; ask with `mode: off`, or without naming a state",
                param="edits",
            )
        return Resolved(SnapshotRef.empty(edit_set), "DISABLED", trace, off=off)

    def loss(self) -> str | None:
        """Why nothing can be answered any more, or None."""
        return self._readiness.reasons()["engine"] if self._readiness.lost else None

    async def _snapshot(self, project: str, edit_set: str, wanted: EditsField) -> SnapshotRef:
        """The state that is wanted, as the engine has it: never another one in its place."""
        empty = SnapshotRef.empty(edit_set)
        if wanted.label is not None:
            found = self._engine.current(label_key(edit_set, wanted.label))
            return found or await self._not_here(project, edit_set, wanted.label)
        if wanted.snapshot is None:
            return self._engine.current(edit_set) or empty
        with field_at_fault("edits.snapshot"):
            if wanted.snapshot == empty.id:
                return empty
            try:
                return self._engine.find(edit_set, wanted.snapshot)
            except (SnapshotNotFound, SnapshotRetired) as error:
                sealed = await self._directory.store.get_snapshot(project, wanted.snapshot)
                if sealed.snapshot.edit_set != edit_set:
                    raise
                raise SnapshotRetired(
                    f"snapshot {wanted.snapshot} is neither the newest one nor at a label, and engines hold no others; "
                    f"put a label on it: PUT /v1/edit_sets/{edit_set}/labels/NAME"
                ) from error

    async def _not_here(self, project: str, edit_set: str, label: str) -> NoReturn:
        """A label that the engine does not have: the store knows whether it is on its way."""
        with field_at_fault("edits.label"):
            await self._directory.store.get_label(project, edit_set, label)
        raise NotReady(f"label {label!r} has not reached this server yet; PUT with wait=active returns when it has")


@contextmanager
def field_at_fault(param: str) -> Iterator[None]:
    """Put the name of the request's field into errors that store and engine raise about its value."""
    try:
        yield
    except (EditSetNotFound, LabelNotFound, SnapshotNotFound, SnapshotRetired) as error:
        error.param = param
        raise
