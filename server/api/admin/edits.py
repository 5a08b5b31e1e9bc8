"""/v1/edits: add, list, read, replace, retire, restore and erase single edits."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from incomes_server.api.admin.conditional import IfMatch, show_version
from incomes_server.api.admin.context import (
    AdminContext,
    Context,
    Limit,
    Project,
    Wait,
    WaitToAdd,
    WaitToRemove,
    WriteId,
)
from incomes_server.api.admin.schemas import CreateEdit, Deleted, EditContent, EditObject, Page, WaitFor
from incomes_server.api.admin.timed import TimedRoute
from incomes_server.api.admin.writes import (
    admitted,
    is_active,
    raise_if_failed,
    status_code,
    store_edits,
    submit,
    wait_for_edits,
)
from incomes_server.api.http.metrics import ACTIVATION_S
from incomes_server.edits import WAITING, Edit, EditStatus, NewEdit, VerbatimState

from incomes_plugin.gist.edit import EditKind

MAX_VERSION = 2**31 - 1
TAKES_ROOM = frozenset({*WAITING, EditStatus.READY})

router = APIRouter(prefix="/v1/edits", tags=["edits"], route_class=TimedRoute)


@router.post("", status_code=202, response_model=EditObject, responses={201: {"model": EditObject}})
async def create_edit(
    body: CreateEdit, context: Context, project: Project, request_id: WriteId, wait: WaitToAdd, response: Response
) -> EditObject:
    """Add an edit; 202 as soon as it is durable, 201 when it has reached the state named by `wait`."""
    edit_set = body.edit_set or context.settings.default_edit_set
    new = context.tokenizer.new_edit(body)
    async with admitted(context, project, request_id, [new]):
        edits = await store_edits(context, project, edit_set, [new], request_id)
    await submit(context, edits, [new], interactive=True)
    return await _answer(context, project, edits[0], wait, response, done=201)


@router.get("", response_model=Page[EditObject])
async def list_edits(
    context: Context,
    project: Project,
    edit_set: str | None = None,
    status: EditStatus | None = None,
    document_id: Annotated[str | None, Query(description="`source.document_id` of the edits to list")] = None,
    author: Annotated[str | None, Query(description="author of the edits to list")] = None,
    conflict: Annotated[bool | None, Query(description="only edits in conflict with others, or only those not")] = None,
    kind: EditKind | None = None,
    verbatim: Annotated[VerbatimState | None, Query(description="only verbatim edits in this state")] = None,
    limit: Limit = 20,
    after: Annotated[str | None, Query(description="id of the last item of the page before")] = None,
    order: Literal["asc", "desc"] = "desc",
) -> Page[EditObject]:
    """List edits, newest first."""
    edits, has_more = await context.store.list_edits(
        project,
        edit_set=edit_set,
        status=status,
        document_id=document_id,
        author=author,
        conflict=conflict,
        kind=kind,
        verbatim=verbatim,
        limit=limit,
        after=after,
        order=order,
    )
    return Page[EditObject].of([EditObject.of(e) for e in edits], has_more)


@router.get("/{edit_id}", response_model=EditObject)
async def get_edit(
    edit_id: str,
    context: Context,
    project: Project,
    response: Response,
    version: Annotated[int | None, Query(ge=1, le=MAX_VERSION)] = None,
) -> EditObject:
    """Read an edit, by default at its newest version."""
    edit = await context.store.get_edit(project, edit_id, version)
    show_version(response, edit.version)
    return EditObject.of(edit)


@router.post("/{edit_id}", status_code=202, response_model=EditObject, responses={200: {"model": EditObject}})
async def replace_edit(
    edit_id: str,
    body: EditContent,
    context: Context,
    project: Project,
    request_id: WriteId,
    if_match: IfMatch,
    wait: WaitToAdd,
    response: Response,
) -> EditObject:
    """Give an edit a new version; the old one serves until the new one is ready, then both change in one step. A
    verbatim edit stays one, with its title and questions, unless the body says otherwise."""
    old = await context.store.get_edit(project, edit_id)
    new = context.tokenizer.new_edit(body, old.verbatim.keys if old.verbatim and old.text else None)
    replaces = old.num_tokens if old.status in TAKES_ROOM else 0
    async with admitted(context, project, request_id, [new], replaces=replaces):
        edit = await context.store.replace_edit(project, edit_id, new, request_id=request_id, if_match=if_match)
    await submit(context, [edit], [new], interactive=True)
    return await _answer(context, project, edit, wait, response, done=200)


@router.post("/{edit_id}/retire", response_model=EditObject, responses={202: {"model": EditObject}})
async def retire_edit(
    edit_id: str,
    context: Context,
    project: Project,
    request_id: WriteId,
    if_match: IfMatch,
    wait: WaitToRemove,
    response: Response,
) -> EditObject:
    """Take an edit out of the newest state; 200 means that no later request reads it there. Where a label or an older
    snapshot is named it is still read: move the label, or switch the edit off."""
    edit = await context.store.retire_edit(project, edit_id, request_id=request_id, if_match=if_match)
    reached = await _gone(context, edit, wait)
    response.status_code = status_code(wait, reached, done=200)
    show_version(response, edit.version)
    return EditObject.of(edit, reached)


@router.post("/{edit_id}/restore", status_code=202, response_model=EditObject, responses={200: {"model": EditObject}})
async def restore_edit(
    edit_id: str,
    context: Context,
    project: Project,
    request_id: WriteId,
    if_match: IfMatch,
    wait: WaitToAdd,
    response: Response,
) -> EditObject:
    """Bring a retired edit back: the content of its newest version is compressed again, as the next version."""
    old = await context.store.get_edit(project, edit_id)
    keys = old.verbatim.keys if old.verbatim else None
    new = NewEdit(old.text, context.tokenizer.found_by(keys, old.text) if old.text else (), found_by=keys)
    async with admitted(context, project, request_id, [new]):
        edit = await context.store.restore_edit(project, old, new.token_ids, request_id=request_id, if_match=if_match)
    await submit(context, [edit], [new], interactive=True)
    return await _answer(context, project, edit, wait, response, done=200)


@router.delete("/{edit_id}", response_model=Deleted, responses={202: {"model": Deleted}})
async def erase_edit(
    edit_id: str,
    context: Context,
    project: Project,
    request_id: WriteId,
    if_match: IfMatch,
    wait: WaitToRemove,
    response: Response,
) -> Deleted:
    """Erase an edit: text, tokens and gists of all its versions go, ids and times stay. There is no way back."""
    edit = await context.store.erase_edit(project, edit_id, request_id=request_id, if_match=if_match)
    reached = await _gone(context, edit, wait)
    response.status_code = status_code(wait, reached, done=200)
    return Deleted(id=edit.id, object="edit.deleted", reached=reached)


async def _gone(context: AdminContext, edit: Edit, wait: Wait) -> WaitFor:
    """How far an edit has left the newest state: `active` when every replica has let go of it there."""
    # Without a set_version the edit never was in a snapshot: there is nothing to wait for.
    never_served = edit.set_version is None
    gone = never_served or (
        wait.target is WaitFor.ACTIVE and await is_active(context, edit.edit_set, edit.set_version or 0, wait)
    )
    if gone and not never_served:
        ACTIVATION_S.observe(wait.elapsed_s)
    return WaitFor.ACTIVE if gone else WaitFor.READY


async def _answer(
    context: AdminContext, project: str, edit: Edit, wait: Wait, response: Response, done: int
) -> EditObject:
    (edit,), reached = await wait_for_edits(context, project, [edit], wait)
    raise_if_failed(edit, wait)
    response.status_code = status_code(wait, reached, done)
    show_version(response, edit.version)
    return EditObject.of(edit, reached)
