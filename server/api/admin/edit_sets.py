"""/v1/edit_sets: named collections of edits, the unit of tenancy and rollout."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from incomes_server.api.admin.conditional import IfMatch, show_version
from incomes_server.api.admin.context import Context, Limit, Project, WaitToRemove, WriteId
from incomes_server.api.admin.schemas import Deleted, EditSetContent, EditSetObject, Page, WaitFor
from incomes_server.api.admin.timed import TimedRoute
from incomes_server.api.admin.writes import is_active, status_code
from incomes_server.edits.model import OnConflict

router = APIRouter(prefix="/v1/edit_sets", tags=["edit sets"], route_class=TimedRoute)


@router.post("", status_code=201, response_model=EditSetObject)
async def create_edit_set(
    body: EditSetContent, context: Context, project: Project, request_id: WriteId, response: Response
) -> EditSetObject:
    """Create an empty edit set."""
    item = await context.store.create_edit_set(
        project,
        body.name,
        request_id=request_id,
        two_person=body.two_person,
        on_conflict=OnConflict(body.on_conflict),
    )
    show_version(response, item.snapshot.version)
    return EditSetObject.of(item)


@router.get("", response_model=Page[EditSetObject])
async def list_edit_sets(
    context: Context,
    project: Project,
    limit: Limit = 20,
    after: Annotated[str | None, Query(description="id of the last item of the page before")] = None,
    order: Literal["asc", "desc"] = "desc",
) -> Page[EditSetObject]:
    """List the project's edit sets, newest first."""
    sets, has_more = await context.store.list_edit_sets(project, limit=limit, after=after, order=order)
    return Page[EditSetObject].of([EditSetObject.of(s) for s in sets], has_more)


@router.get("/{edit_set}", response_model=EditSetObject)
async def get_edit_set(edit_set: str, context: Context, project: Project, response: Response) -> EditSetObject:
    """Read an edit set by id or name."""
    item = await context.store.get_edit_set(project, edit_set)
    show_version(response, item.snapshot.version)
    return EditSetObject.of(item)


@router.delete("/{edit_set}", response_model=Deleted, responses={202: {"model": Deleted}})
async def delete_edit_set(
    edit_set: str,
    context: Context,
    project: Project,
    request_id: WriteId,
    if_match: IfMatch,
    wait: WaitToRemove,
    response: Response,
) -> Deleted:
    """Retire every edit of a set without labels and hide it; after a 200 no replica uses any of them any more."""
    item = await context.store.delete_edit_set(project, edit_set, request_id=request_id, if_match=if_match)
    context.directory.forget(item.id)
    active = wait.target is WaitFor.ACTIVE and await is_active(context, item.id, item.snapshot.version, wait)
    reached = WaitFor.ACTIVE if active else WaitFor.READY
    response.status_code = status_code(wait, reached, done=200)
    return Deleted(id=item.id, object="edit_set.deleted", reached=reached)
