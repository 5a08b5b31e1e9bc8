"""Rows of the tables <-> nouns of the domain."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from incomes_server.auth.principal import SERVER
from incomes_server.edits import (
    Edit,
    EditProvenance,
    EditSet,
    EditStatus,
    OnConflict,
    RecallKeys,
    VerbatimState,
    VerbatimStatus,
)
from incomes_server.edits.audit import Change
from incomes_server.store.schema import edit_sets, edit_versions, edits, verbatims
from incomes_server.store.vault import Box, box_of
from sqlalchemy import Column, ColumnElement, Connection, Row, Select, select, tuple_

from incomes_plugin.errors import EditNotFound
from incomes_plugin.gist.edit import CaptureJob, EditKey
from incomes_plugin.pool.snapshot import SnapshotRef

T = TypeVar("T")

_CHUNK = 500
OF_VERSION = (verbatims.c.edit_id == edit_versions.c.edit_id) & (verbatims.c.version == edit_versions.c.version)

AnyRow: TypeAlias = Row[*tuple[Any, ...]]
"""A row of any query."""


@dataclass
class Transaction:
    """An open write transaction and what it changes, for those who wait.

    Attributes:
        now: unix seconds.
        changed: edits whose status moved.
        touched: edit sets that were made, moved to a new version or deleted.
        notes: what the command that is being applied did to which object, for its audit event.
        replayed: that command was applied before, or found everything as it wants it: it leaves no event.
        actor: id of the key that sent the command that is being applied, or whose former request it works off.
        erased: content was erased; its traces in the files have to follow.
    """

    conn: Connection
    now: int
    changed: set[str] = field(default_factory=set)
    touched: set[str] = field(default_factory=set)
    notes: dict[str, Change] = field(default_factory=dict)
    replayed: bool = False
    actor: str = SERVER.key_id
    erased: bool = False

    def note(self, target: str, before: str | None, after: str | None) -> None:
        """Remember a change for the audit log; of several changes of one object the first `before` counts."""
        first = self.notes.get(target)
        self.notes[target] = Change(target, before if first is None else first.before, after)


def chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Pieces small enough for one statement's parameters."""
    for start in range(0, len(items), _CHUNK):
        yield items[start : start + _CHUNK]


def in_pairs(first: Column[Any], second: Column[Any], pairs: Sequence[tuple[Any, Any]]) -> ColumnElement[bool]:
    """`(first, second)` is one of the pairs. For pairs alone SQLite searches no index and reads the whole table."""
    return first.in_({one for one, _ in pairs}) & tuple_(first, second).in_(pairs)


def encode_tokens(token_ids: Sequence[int]) -> bytes:
    """Little-endian int32."""
    return array("i", token_ids).tobytes()


def decode_tokens(data: bytes) -> tuple[int, ...]:
    """Back to ids."""
    return tuple(array("i", data))


def encode_metadata(metadata: dict[str, str]) -> str:
    """JSON with sorted keys."""
    return json.dumps(metadata, sort_keys=True)


def sealed_details(box: Box, edit: EditKey, metadata: dict[str, str], source: EditProvenance) -> dict[str, Any]:
    """Columns for what is known about an edit version beside what it says."""
    if box.key_id is None:
        return {"metadata": encode_metadata(metadata), "details": None, **vars(source)}
    said = json.dumps({"metadata": metadata, **vars(source)}, sort_keys=True)
    found_by = {name: box.digest(name, getattr(source, name)) for name in ("document_id", "author")}
    columns = {"metadata": "{}", "source_url": None, "justification": None, **found_by}
    return columns | {"details": box.seal_text(edit, said, "details")}


def details_from(conn: Connection, edit: EditKey, row: AnyRow) -> tuple[dict[str, str], EditProvenance]:
    """Back from a row with those columns and data_key. Nothing where the key was erased."""
    if row.details is None:
        source = EditProvenance(row.source_url, row.document_id, row.author, row.justification)
        return json.loads(row.metadata), source
    said = json.loads(box_of(conn, row.data_key).open_text(edit, row.details, "details") or '{"metadata": {}}')
    return said.pop("metadata"), EditProvenance(**said)


def encode_ids(ids: Sequence[str]) -> str | None:
    """JSON; None for none."""
    return json.dumps(ids) if ids else None


def decode_ids(data: str | None) -> tuple[str, ...]:
    """Back to ids."""
    return tuple(json.loads(data)) if data else ()


def select_edits() -> Select[Any]:
    """Edits joined with their versions, without token ids, gist bytes and vectors."""
    v, b = edit_versions.c, verbatims.c
    return select(
        edits.c.id, edits.c.project, edits.c.edit_set, edits.c.external_id, edits.c.head_version,
        edits.c.active_version, edits.c.retired_at, v.version, v.status, v.status_reason, v.text, v.metadata,
        v.created_at, v.updated_at, v.set_version, v.num_tokens, v.gist_bytes, v.data_key,
        v.source_url, v.document_id, v.author, v.details,
        v.justification, edits.c.supersedes, v.effective_from, v.expires_at, edits.c.disabled_at,
        v.needs_approval, v.written_by, v.approved_by, v.on_conflict, v.conflict_check,
        v.kind, b.state, b.reason, b.vectors, b.num_bytes, b.tokens, b.margin, b.steps, b.said,
        b.data_key.label("said_key"),
    ).join_from(edits, edit_versions, v.edit_id == edits.c.id).outerjoin(verbatims, OF_VERSION)  # fmt: skip


def edit_from(conn: Connection, row: AnyRow) -> Edit:
    """One row of `select_edits`."""
    metadata, provenance = details_from(conn, (row.id, row.version), row)
    return Edit(
        id=row.id,
        project=row.project,
        edit_set=row.edit_set,
        version=row.version,
        status=EditStatus(row.status),
        status_reason=row.status_reason,
        text=box_of(conn, row.data_key).open_text((row.id, row.version), row.text),
        external_id=row.external_id,
        metadata=metadata,
        created_at=row.created_at,
        updated_at=row.updated_at,
        set_version=row.set_version,
        num_tokens=row.num_tokens,
        gist_bytes=row.gist_bytes,
        provenance=provenance,
        supersedes=decode_ids(row.supersedes),
        effective_from=row.effective_from,
        expires_at=row.expires_at,
        held=_held(row),
        written_by=row.written_by,
        approved_by=row.approved_by,
        on_conflict=OnConflict(row.on_conflict or OnConflict.FLAG),
        conflict_check=row.conflict_check,
        kind=row.kind or "fact",
        verbatim=None if row.state is None else _verbatim_status(conn, row),
    )


def _verbatim_status(conn: Connection, row: AnyRow) -> VerbatimStatus:
    keys = keys_from(conn, (row.id, row.version), row.said, row.said_key)
    numbers = {name: getattr(row, name) for name in ("reason", "vectors", "num_bytes", "tokens", "margin", "steps")}
    return VerbatimStatus(keys, VerbatimState(row.state), **numbers)


def keys_from(conn: Connection, edit: EditKey, said: str, data_key: str | None) -> RecallKeys:
    """What a verbatim edit version is found by. Nothing where the key was erased."""
    found = json.loads(box_of(conn, data_key).open_text(edit, said, "said") or "{}")
    return RecallKeys(found.get("title"), tuple(found.get("questions", ())))


def _held(row: AnyRow) -> str | None:
    if row.status != EditStatus.READY or row.active_version == row.version:
        return None
    if row.disabled_at is not None:
        return "disabled"
    return "approval" if row.needs_approval is not None and row.approved_by is None else "scheduled"


def load_edits(conn: Connection, refs: Sequence[EditKey]) -> list[Edit]:
    """The given edit versions, in the given order. Raises EditNotFound: one is forgotten (`compaction.py`)."""
    found: dict[EditKey, Edit] = {}
    for part in chunks(refs):
        for row in conn.execute(select_edits().where(edits.c.id.in_([edit_id for edit_id, _ in part]))):
            found[row.id, row.version] = edit_from(conn, row)
    if missing := next((ref for ref in refs if ref not in found), None):
        raise EditNotFound(f"version {missing[1]} of edit {missing[0]} was superseded, and is forgotten by now")
    return [found[ref] for ref in refs]


def edit_set_from(row: AnyRow) -> EditSet:
    """One row of `edit_sets`."""
    options = row.disabled_at is not None, row.two_person is not None, OnConflict(row.on_conflict or OnConflict.FLAG)
    return EditSet(row.id, row.project, row.name, row.created_at, snapshot_from(row.id, row), *options)


def snapshot_from(edit_set: str, row: AnyRow | None) -> SnapshotRef:
    """State of an edit set by a row with version, digest and num_edits; None = before anything was in it."""
    return SnapshotRef.empty(edit_set) if row is None else SnapshotRef(edit_set, row.version, row.digest, row.num_edits)


def load_edit_set(conn: Connection, edit_set_id: str) -> EditSet:
    """By id, deleted or not."""
    return edit_set_from(conn.execute(select(edit_sets).where(edit_sets.c.id == edit_set_id)).one())


def text_from(conn: Connection, row: AnyRow) -> str:
    """The text of a row with edit_id, version, text, data_key."""
    return box_of(conn, row.data_key).open_text((row.edit_id, row.version), row.text)


def job_from(conn: Connection, row: AnyRow) -> CaptureJob:
    """A row with edit_id, version, token_ids, data_key, edit_set, on_conflict, kind."""
    token_ids = box_of(conn, row.data_key).open("token_ids", (row.edit_id, row.version), row.token_ids)
    compared_in = None if row.on_conflict == OnConflict.KEEP_BOTH else row.edit_set
    ids = decode_tokens(token_ids)
    return CaptureJob(row.edit_id, row.version, ids, edit_set=compared_in, kind=row.kind or "fact")
