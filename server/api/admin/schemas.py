"""JSON shapes of the admin API: requests (unknown fields refused) and resources. OpenAI conventions throughout."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from incomes_server.api.admin.details import EditDetails, EditSource
from incomes_server.api.admin.times import ShownTime
from incomes_server.api.admin.verbatim_schemas import VerbatimFields, VerbatimObject
from incomes_server.api.http.json_body import without_nul
from incomes_server.edits.model import Edit, EditSet, EditStatus, OnConflict
from incomes_server.edits.verbatim import RecallKeys
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from incomes_plugin.gist.edit import EditKind

Metadata = Annotated[
    dict[
        Annotated[str, StringConstraints(min_length=1, max_length=64)],
        Annotated[str, StringConstraints(max_length=512)],
    ],
    Field(max_length=16),
]
EditText = Annotated[str, StringConstraints(min_length=1, max_length=65536)]
SetName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
SetRef = Annotated[str, StringConstraints(min_length=1, max_length=128)]
ExternalId = Annotated[str, StringConstraints(min_length=1, max_length=128)]

Superseded = Annotated[list[Annotated[str, StringConstraints(min_length=1, max_length=128)]], Field(max_length=32)]

OnConflictName = Literal["reject", "supersede", "keep_both", "flag"]

ResourceT = TypeVar("ResourceT", bound="Resource")


class RequestBody(BaseModel):
    """Base of what callers send: a misspelt field is an error."""

    model_config = ConfigDict(extra="forbid", strict=True)

    _text = field_validator("*", mode="before")(without_nul)


class Resource(BaseModel):
    """Base of what the API returns."""

    id: str


class EditSetContent(RequestBody):
    """Body of `POST /v1/edit_sets`."""

    name: SetName
    two_person: bool = Field(False, description="what one key writes joins when another key has approved it; for good")
    on_conflict: OnConflictName = Field("flag", description="of edits of the set that do not say it; for good")


class EditContent(EditDetails, VerbatimFields, RequestBody):
    """What an edit says; body of `POST /v1/edits/{id}` (a new version)."""

    text: EditText
    external_id: ExternalId | None = None
    metadata: Metadata = Field(default_factory=dict)
    on_conflict: OnConflictName | None = Field(
        None, description="where it contradicts another edit of the set or says the same; default: as the set has it"
    )


class CreateEdit(EditContent):
    """Body of `POST /v1/edits`; `edit_set` is a name or an `eset_` id, by default the project's default set."""

    edit_set: SetRef | None = None
    supersedes: Superseded = Field(default_factory=list, description="edits that leave when this one joins")


class ImportLine(CreateEdit):
    """Short form of one line of a bulk import."""

    custom_id: Annotated[str, StringConstraints(min_length=1, max_length=128)]


class BatchLine(RequestBody):
    """OpenAI-Batch form of one line of a bulk import."""

    custom_id: Annotated[str, StringConstraints(min_length=1, max_length=128)]
    method: Literal["POST"]
    url: Literal["/v1/edits"]
    body: CreateEdit


class WaitFor(StrEnum):
    """How far a write goes before it is answered."""

    ACCEPTED = "accepted"
    READY = "ready"
    ACTIVE = "active"


class EditSetObject(Resource):
    """An edit set; `snapshot` identifies its present content."""

    object: Literal["edit_set"] = "edit_set"
    name: str
    created_at: int
    version: int
    num_edits: int
    snapshot: str
    disabled: bool
    two_person: bool
    on_conflict: OnConflict

    @classmethod
    def of(cls, item: EditSet) -> Self:
        """Render a stored edit set."""
        head = item.snapshot
        return cls(
            id=item.id,
            name=item.name,
            created_at=item.created_at,
            version=head.version,
            num_edits=head.num_edits,
            snapshot=head.id,
            disabled=item.disabled,
            two_person=item.two_person,
            on_conflict=item.on_conflict,
        )


class ConflictObject(BaseModel):
    """Another edit that is ready and answers the same question otherwise, or in the same way; `score` is from 0.5 to
    1."""

    edit_id: str
    kind: Literal["contradiction", "duplicate"]
    score: float


class EditObject(Resource):
    """An edit at one version. `reached` is set on answers to writes: how far the write has come."""

    object: Literal["edit"] = "edit"
    created_at: int
    updated_at: int
    edit_set: str
    version: int
    text: str
    status: EditStatus
    status_reason: str | None
    external_id: str | None
    metadata: dict[str, str]
    set_version: int | None
    num_tokens: int
    gist_bytes: int
    source: EditSource | None
    author: str | None
    justification: str | None
    supersedes: list[str]
    effective_from: ShownTime | None
    expires_at: ShownTime | None
    held: str | None
    written_by: str | None
    approved_by: str | None
    on_conflict: OnConflict
    conflict_check: Literal["done", "partial", "unavailable"] | None
    conflicts: list[ConflictObject]
    kind: EditKind
    title: str | None
    questions: list[str]
    verbatim: VerbatimObject | None
    reached: WaitFor | None = None

    @classmethod
    def of(cls, edit: Edit, reached: WaitFor | None = None) -> Self:
        """Render a stored edit."""
        said = edit.provenance
        own: dict[str, Any] = {
            "source": EditSource.of(said),
            "author": said.author,
            "justification": said.justification,
        }
        own["conflicts"] = [ConflictObject(edit_id=c.edit_id, kind=c.kind, score=c.score) for c in edit.conflicts]
        keys = edit.verbatim.keys if edit.verbatim else RecallKeys()
        own |= {"title": keys.title, "questions": list(keys.questions)}
        own["verbatim"] = VerbatimObject.of(edit.verbatim) if edit.verbatim else None
        names = cls.model_fields.keys() - {"object", "reached", "supersedes", *own}
        fields = {name: getattr(edit, name) for name in names}
        return cls(**fields, **own, supersedes=list(edit.supersedes), reached=reached)


class Deleted(Resource):
    """Answer to a DELETE."""

    object: str
    deleted: Literal[True] = True
    reached: WaitFor


class Page(BaseModel, Generic[ResourceT]):
    """OpenAI list envelope; `after=last_id` gives the next page."""

    object: Literal["list"] = "list"
    data: list[ResourceT]
    first_id: str | None
    last_id: str | None
    has_more: bool

    @classmethod
    def of(cls, data: list[ResourceT], has_more: bool) -> Self:
        """Wrap one page."""
        first, last = (data[0].id, data[-1].id) if data else (None, None)
        return cls(data=data, first_id=first, last_id=last, has_more=has_more)


class LineResult(BaseModel):
    """Outcome of one line of an import: an edit id, or the error's envelope content."""

    line: int
    custom_id: str | None
    edit: str | None = None
    status: EditStatus | None = None
    error: dict[str, Any] | None = None


class RequestCounts(BaseModel):
    """Lines of an import; `completed + failed == total`, always."""

    total: int
    completed: int
    failed: int


class ImportResult(Resource):
    """Answer to a bulk import, one entry in `data` for every line."""

    object: Literal["edit.import"] = "edit.import"
    dry_run: bool
    request_counts: RequestCounts
    reached: WaitFor
    data: list[LineResult]


class ErrorContent(BaseModel):
    """What went wrong; `code` is stable, `param` names the field at fault."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorEnvelope(BaseModel):
    """Body of every answer that is not a success."""

    error: ErrorContent
