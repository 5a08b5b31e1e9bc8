"""JSON shapes of snapshots and labels."""

from __future__ import annotations

from typing import Literal, Self

from incomes_server.api.admin.schemas import RequestBody, Resource, SetRef, WaitFor
from incomes_server.edits.label import Label, Sealed, SnapshotDiff
from pydantic import BaseModel

from incomes_plugin.pool.snapshot import SnapshotRef

MAX_DIFF = 1000


class SnapshotObject(Resource):
    """A sealed state of an edit set; `created_at` is when the set came to it last."""

    object: Literal["snapshot"] = "snapshot"
    edit_set: str
    version: int
    num_edits: int
    created_at: int
    labels: list[str]

    @classmethod
    def of(cls, sealed: Sealed) -> Self:
        """Render a state that is stored."""
        ref = sealed.snapshot
        return cls(
            id=ref.id,
            edit_set=ref.edit_set,
            version=ref.version,
            num_edits=ref.num_edits,
            created_at=sealed.created_at,
            labels=list(sealed.labels),
        )


class Place(BaseModel):
    """A state of an edit set."""

    snapshot: str
    version: int
    num_edits: int

    @classmethod
    def of(cls, ref: SnapshotRef) -> Self:
        """Render a reference."""
        return cls(snapshot=ref.id, version=ref.version, num_edits=ref.num_edits)


class EditVersionRef(BaseModel):
    """An edit at a version."""

    edit: str
    version: int


class DiffObject(BaseModel):
    """What lies between two states of an edit set. Of a longer list the first `MAX_DIFF` are there; the counts are
    whole."""

    object: Literal["snapshot.diff"] = "snapshot.diff"
    edit_set: str
    base: Place
    target: Place
    num_added: int
    num_removed: int
    added: list[EditVersionRef]
    removed: list[EditVersionRef]

    @classmethod
    def of(cls, found: SnapshotDiff) -> Self:
        """Render what was compared."""
        added, removed = (
            [EditVersionRef(edit=edit, version=version) for edit, version in part[:MAX_DIFF]]
            for part in (found.added, found.removed)
        )
        return cls(
            edit_set=found.target.edit_set,
            base=Place.of(found.base),
            target=Place.of(found.target),
            num_added=len(found.added),
            num_removed=len(found.removed),
            added=added,
            removed=removed,
        )


class LabelMove(RequestBody):
    """Body of `PUT /v1/edit_sets/{edit_set}/labels/{label}`; `to` is `head`, a version, a snapshot's id or a label."""

    to: SetRef


class LabelObject(Resource):
    """A label of an edit set: where it points, and where it pointed before. `moves` counts its moves. `reached` is set
    on answers to writes."""

    object: Literal["label"] = "label"
    edit_set: str
    name: str
    snapshot: str
    version: int
    num_edits: int
    moves: int
    moved_at: int
    previous: Place | None
    reached: WaitFor | None = None

    @classmethod
    def of(cls, label: Label, reached: WaitFor | None = None) -> Self:
        """Render a stored label."""
        return cls(
            id=label.key,
            edit_set=label.edit_set,
            name=label.name,
            **Place.of(label.snapshot).model_dump(),
            moves=label.move,
            moved_at=label.moved_at,
            previous=None if label.previous is None else Place.of(label.previous),
            reached=reached,
        )
