"""/v1/audit_events: who changed what, page by page or all of it as JSONL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from incomes_server.api.admin.context import AdminContext, Context, Limit, Project
from incomes_server.api.admin.schemas import Page
from incomes_server.api.admin.tenancy_schemas import AuditEventObject
from incomes_server.api.admin.timed import TimedRoute

router = APIRouter(prefix="/v1/audit_events", tags=["audit"], route_class=TimedRoute)
EXPORT_PAGE = 500


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
