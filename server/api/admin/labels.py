"""/v1/edit_sets/{edit_set}/labels: movable names of an edit set's states."""

from __future__ import annotations

from fastapi import APIRouter, Response
from incomes_server.api.admin.conditional import IfMatch, show_version
from incomes_server.api.admin.context import Context, Project, WaitToRemove, WriteId
from incomes_server.api.admin.label_schemas import LabelMove, LabelObject
from incomes_server.api.admin.schemas import Deleted, Page, WaitFor
from incomes_server.api.admin.timed import TimedRoute
from incomes_server.api.admin.writes import is_active, status_code

router = APIRouter(prefix="/v1/edit_sets/{edit_set}/labels", tags=["labels"], route_class=TimedRoute)


@router.get("", response_model=Page[LabelObject])
async def list_labels(edit_set: str, context: Context, project: Project) -> Page[LabelObject]:
    """List the labels of an edit set, by name."""
    labels = await context.store.list_labels(project, edit_set)
    return Page[LabelObject].of([LabelObject.of(label) for label in labels], has_more=False)


@router.get("/{label}", response_model=LabelObject)
async def get_label(edit_set: str, label: str, context: Context, project: Project, response: Response) -> LabelObject:
    """Read where a label points."""
    found = await context.store.get_label(project, edit_set, label)
    show_version(response, found.move)
    return LabelObject.of(found)


@router.put("/{label}", response_model=LabelObject, responses={202: {"model": LabelObject}})
async def move_label(
    edit_set: str,
    label: str,
    body: LabelMove,
    context: Context,
    project: Project,
    request_id: WriteId,
    if_match: IfMatch,
    wait: WaitToRemove,
    response: Response,
) -> LabelObject:
    """Point a label, made if needed, at a state of its edit set: promote, or roll back. 200 means that every later
    request that names the label gets that state, on every live replica; each replica changes all at once."""
    await context.room.admit_label(project, *await context.store.use_of_move(project, edit_set, label, body.to))
    found = await context.store.move_label(project, edit_set, label, body.to, request_id=request_id, if_match=if_match)
    active = wait.target is WaitFor.ACTIVE and await is_active(context, found.key, found.move, wait)
    reached = WaitFor.ACTIVE if active else WaitFor.READY
    response.status_code = status_code(wait, reached, done=200)
    show_version(response, found.move)
    return LabelObject.of(found, reached)


@router.delete("/{label}", response_model=Deleted, responses={202: {"model": Deleted}})
async def delete_label(
    edit_set: str,
    label: str,
    context: Context,
    project: Project,
    request_id: WriteId,
    if_match: IfMatch,
    wait: WaitToRemove,
    response: Response,
) -> Deleted:
    """Delete a label; the states of its edit set stay. 200 means that later requests that name it are refused."""
    found = await context.store.delete_label(project, edit_set, label, request_id=request_id, if_match=if_match)
    active = wait.target is WaitFor.ACTIVE and await is_active(context, found.key, found.move, wait)
    reached = WaitFor.ACTIVE if active else WaitFor.READY
    response.status_code = status_code(wait, reached, done=200)
    return Deleted(id=found.key, object="label.deleted", reached=reached)
