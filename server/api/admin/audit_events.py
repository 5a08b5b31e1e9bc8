"""/v1/audit_events: who changed what, page by page or all of it as JSONL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Literal, Self

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from incomes_server.api.admin.context import AdminContext, Context, Limit, Project
from incomes_server.api.admin.schemas import Page, Resource
from incomes_server.api.admin.timed import TimedRoute
from incomes_server.edits.audit import AuditEvent
from pydantic import BaseModel

router = APIRouter(prefix="/v1/audit_events", tags=["audit"], route_class=TimedRoute)
EXPORT_PAGE = 500


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


@router.get("", response_model=Page[AuditEventObject])
async def list_audit_events(
    context: Context,
    project: Project,
    limit: Limit = 20,
    after: Annotated[str | None, Query(description="id of the last item of the page before")] = None,
    order: Literal["asc", "desc"] = "desc",
) -> Page[AuditEventObject]:
    """List the project's audit events, newest first."""
    events, has_more = await context.store.list_audit_events(project, limit=limit, after=after, order=order)
    return Page[AuditEventObject].of([AuditEventObject.of(event) for event in events], has_more)


@router.get("/export", response_class=StreamingResponse, responses={200: {"content": {"application/jsonl": {}}}})
async def export_audit_events(context: Context, project: Project) -> StreamingResponse:
    """The project's whole audit log, oldest first, one JSON object a line; `incomes audit verify FILE` checks it."""
    return StreamingResponse(_lines(context, project), media_type="application/jsonl")


async def _lines(context: AdminContext, project: str) -> AsyncIterator[str]:
    after, has_more = None, True
    while has_more:
        events, has_more = await context.store.list_audit_events(project, limit=EXPORT_PAGE, after=after, order="asc")
        after = events[-1].id if events else None
        yield "".join(AuditEventObject.of(event).model_dump_json() + "\n" for event in events)
