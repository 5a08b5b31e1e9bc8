"""Kill switches of an edit, an edit set and the server, and the approval of a second person."""

from __future__ import annotations

from fastapi import APIRouter, Response
from incomes_server.api.admin.api_keys import check_operator
from incomes_server.api.admin.conditional import IfMatch, LookedAt, show_version
from incomes_server.api.admin.context import AdminContext, Caller, Context, Project, Wait, WaitToRemove, WriteId
from incomes_server.api.admin.schemas import EditObject, EditSetObject, WaitFor
from incomes_server.api.admin.tenancy_schemas import ServerObject
from incomes_server.api.admin.timed import TimedRoute
from incomes_server.api.admin.writes import is_active, status_code
from incomes_server.auth.principal import Principal
from incomes_server.edits import Edit
from incomes_server.store import commands

router = APIRouter(prefix="/v1", route_class=TimedRoute)


@router.post("/edits/{edit_id}/disable", tags=["edits"], responses={202: {"model": EditObject}})
async def disable_edit(
    edit_id: str,
    context: Context,
    project: Project,
    request_id: WriteId,
    if_match: IfMatch,
    wait: WaitToRemove,
    response: Response,
) -> EditObject:
    """Switch an edit off; 200 means that no later request reads it, in whatever snapshot."""
    command = commands.SwitchEdit(project, request_id, edit_id, False, if_match)
    return await _edit(context, await context.store.switch(command), wait, response)


@router.post("/edits/{edit_id}/enable", tags=["edits"], responses={202: {"model": EditObject}})
async def enable_edit(
    edit_id: str,
    context: Context,
    project: Project,
    request_id: WriteId,
    if_match: IfMatch,
    wait: WaitToRemove,
    response: Response,
) -> EditObject:
    """Switch an edit on again."""
    command = commands.SwitchEdit(project, request_id, edit_id, True, if_match)
    return await _edit(context, await context.store.switch(command), wait, response)


@router.post("/edits/{edit_id}/approve", tags=["edits"], responses={202: {"model": EditObject}})
async def approve_edit(
    edit_id: str,
    context: Context,
    project: Project,
    request_id: WriteId,
    if_match: LookedAt,
    wait: WaitToRemove,
    response: Response,
) -> EditObject:
    """Let a version of an edit of a two-person set in, if it still is the newest. The caller's key is another than its
    writer's; `If-Match` names the version that was looked at."""
    command = commands.ApproveEdit(project, request_id, edit_id, if_match)
    return await _edit(context, await context.store.switch(command), wait, response)


@router.post("/edit_sets/{edit_set}/disable", tags=["edit sets"], responses={202: {"model": EditSetObject}})
async def disable_edit_set(
    edit_set: str, context: Context, project: Project, request_id: WriteId, wait: WaitToRemove, response: Response
) -> EditSetObject:
    """Switch an edit set off; 200 means that no later request reads any of its edits."""
    return await _edit_set(context, commands.SwitchEditSet(project, request_id, edit_set, False), wait, response)


@router.post("/edit_sets/{edit_set}/enable", tags=["edit sets"], responses={202: {"model": EditSetObject}})
async def enable_edit_set(
    edit_set: str, context: Context, project: Project, request_id: WriteId, wait: WaitToRemove, response: Response
) -> EditSetObject:
    """Switch an edit set on again."""
    return await _edit_set(context, commands.SwitchEditSet(project, request_id, edit_set, True), wait, response)


@router.get("/server", tags=["operations"])
async def get_server(context: Context) -> ServerObject:
    """Whether all edits are switched off."""
    return ServerObject(id="server", disabled=not await context.store.is_server_on())


@router.post("/server/disable", tags=["operations"], responses={202: {"model": ServerObject}})
async def disable_server(context: Context, caller: Caller, wait: WaitToRemove, response: Response) -> ServerObject:
    """Switch the edits of all projects off; the operator's. 200 means that no later request reads any edit."""
    return await _server(context, caller, wait, response, on=False)


@router.post("/server/enable", tags=["operations"], responses={202: {"model": ServerObject}})
async def enable_server(context: Context, caller: Caller, wait: WaitToRemove, response: Response) -> ServerObject:
    """Switch them on again."""
    return await _server(context, caller, wait, response, on=True)


async def _server(
    context: AdminContext, caller: Principal, wait: Wait, response: Response, *, on: bool
) -> ServerObject:
    check_operator(context, caller)
    moved = await context.store.switch(commands.SwitchServer(caller.project, on))
    waited = wait.target is WaitFor.ACTIVE
    reached = WaitFor.ACTIVE if waited and await _all_active(context, moved, wait) else WaitFor.READY
    response.status_code = status_code(wait, reached, done=200)
    return ServerObject(id="server", disabled=not on, reached=reached)


async def _all_active(context: AdminContext, versions: dict[str, int], wait: Wait) -> bool:
    return all([await is_active(context, edit_set, version, wait) for edit_set, version in versions.items()])


async def _edit(context: AdminContext, edit: Edit, wait: Wait, response: Response) -> EditObject:
    item = await context.store.get_edit_set(edit.project, edit.edit_set)
    active = wait.target is WaitFor.ACTIVE and await is_active(context, item.id, item.snapshot.version, wait)
    reached = WaitFor.ACTIVE if active else WaitFor.READY
    response.status_code = status_code(wait, reached, done=200)
    show_version(response, edit.version)
    return EditObject.of(edit, reached)


async def _edit_set(
    context: AdminContext, command: commands.SwitchEditSet, wait: Wait, response: Response
) -> EditSetObject:
    item = await context.store.switch(command)
    active = wait.target is WaitFor.ACTIVE and await is_active(context, item.id, item.snapshot.version, wait)
    response.status_code = status_code(wait, WaitFor.ACTIVE if active else WaitFor.READY, done=200)
    show_version(response, item.snapshot.version)
    return EditSetObject.of(item)
