"""JSON shapes of projects, API keys, data keys, audit events and the server's own switch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from incomes_server.api.admin.schemas import RequestBody, Resource, SetName, WaitFor
from incomes_server.auth.keys import StoredKey
from incomes_server.auth.principal import Scope
from incomes_server.edits.audit import AuditEvent
from pydantic import BaseModel, Field

if TYPE_CHECKING:
    from incomes_server.store.sealing import DataKeyState

MAX_GRACE_S = 30 * 86_400


class ProjectContent(RequestBody):
    """Body of `POST /v1/projects`."""

    name: SetName


class ProjectObject(Resource):
    """A tenant; its id is its name."""

    object: Literal["project"] = "project"
    name: str
    created_at: int


AtLeastOne = Annotated[int | None, Field(ge=1, le=2**62)]


class LimitsContent(RequestBody):
    """Body of `POST /v1/projects/{name}`: limits of the project; null or absent = as the settings say."""

    max_edits: AtLeastOne = None
    max_gist_bytes: AtLeastOne = None
    max_running_requests: AtLeastOne = None
    chat_requests_per_minute: AtLeastOne = None
    writes_per_minute: AtLeastOne = None


class ProjectLimits(Resource):
    """What an operator has set for a project."""

    object: Literal["project.limits"] = "project.limits"
    max_edits: int | None
    max_gist_bytes: int | None
    max_running_requests: int | None
    chat_requests_per_minute: int | None
    writes_per_minute: int | None


class ApiKeyContent(RequestBody):
    """Body of `POST /v1/api_keys`; `project` is the caller's own unless an operator names another."""

    name: SetName
    scopes: Annotated[list[Annotated[Scope, Field(strict=False)]], Field(min_length=1, max_length=len(Scope))]
    project: SetName | None = None


class Rotation(RequestBody):
    """Body of `POST /v1/api_keys/{key_id}/rotate`: how long the old key goes on working."""

    grace_s: Annotated[int, Field(ge=0, le=MAX_GRACE_S)] = 3600


class ApiKeyObject(Resource):
    """A key. `secret` is there once, in the answer to the request that made it; the server keeps a digest alone."""

    object: Literal["api_key"] = "api_key"
    project: str
    name: str
    scopes: list[Scope]
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    replaced_by: str | None
    secret: str | None = None

    @classmethod
    def of(cls, key: StoredKey, secret: str | None = None) -> Self:
        """Render a stored key."""
        fields = {name: getattr(key, name) for name in cls.model_fields if name not in {"object", "scopes", "secret"}}
        return cls(**fields, scopes=list(key.scopes), secret=secret)


class DataKeyObject(Resource):
    """A project's data key; `behind` counts the edit versions that are still under an older one, or in the clear. Its
    id is empty where the project has no key."""

    object: Literal["data_key"] = "data_key"
    project: str
    created_at: int | None
    behind: int

    @classmethod
    def of(cls, state: DataKeyState) -> Self:
        """Render the state."""
        return cls(id=state.id or "", project=state.project, created_at=state.created_at, behind=state.behind)


class ChangeObject(BaseModel):
    """What an event did to one object; null = it was not there."""

    target: str
    before: str | None
    after: str | None


class AuditEventObject(Resource):
    """One applied write; `hash` covers every other field but `object`, and the hash of the event before."""

    object: Literal["audit_event"] = "audit_event"
    created_at: int
    project: str
    sequence: int
    actor: str
    action: str
    request_id: str | None
    changes: list[ChangeObject]
    previous_hash: str
    hash: str

    @classmethod
    def of(cls, event: AuditEvent) -> Self:
        """Render a stored event."""
        changes = [ChangeObject(target=c.target, before=c.before, after=c.after) for c in event.changes]
        fields = {name: getattr(event, name) for name in cls.model_fields if name not in {"object", "changes"}}
        return cls(**fields, changes=changes)


class ServerObject(Resource):
    """The server's own switch; `reached` is set on answers to writes."""

    object: Literal["server"] = "server"
    disabled: bool
    reached: WaitFor | None = None
