"""/v1/projects and /v1/api_keys: tenants, and who may do what for them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from incomes_server.api.admin.context import AdminContext, Caller, Context, Limit, Project, WriteId
from incomes_server.api.admin.schemas import Page
from incomes_server.api.admin.tenancy_schemas import (
    ApiKeyContent,
    ApiKeyObject,
    LimitsContent,
    ProjectContent,
    ProjectLimits,
    ProjectObject,
    Rotation,
)
from incomes_server.api.admin.timed import TimedRoute
from incomes_server.auth.keys import digest_of, new_secret
from incomes_server.auth.principal import OPEN_KEY, Principal
from incomes_server.auth.quotas import Limits
from incomes_server.edits import IdPrefix, new_id

from incomes_plugin.errors import PermissionDenied, ProjectNotFound

router = APIRouter(prefix="/v1", tags=["projects and keys"], route_class=TimedRoute)


def check_operator(context: AdminContext, caller: Principal) -> None:
    """Raises PermissionDenied."""
    if caller.key_id != OPEN_KEY and caller.project != context.settings.operator:
        raise PermissionDenied("only an `admin` key of the operator's project may do this (setting `operator_project`)")


async def named_project(context: Context, caller: Caller, project: str | None = None) -> str:
    """`?project=`: the caller's own, or for an operator any that there is. Raises ProjectNotFound."""
    return await acts_for(context, caller, project)


async def acts_for(context: AdminContext, caller: Principal, project: str | None) -> str:
    """The project that the caller means and may act for. Raises ProjectNotFound."""
    if project is None or project == caller.project:
        return caller.project
    operator = caller.key_id == OPEN_KEY or caller.project == context.settings.operator
    configured = {key.project for key in context.settings.api_keys}
    if operator and (project in configured or await context.store.has_project(project)):
        return project
    raise ProjectNotFound(f"no project {project!r}", param="project")


Named = Annotated[str, Depends(named_project)]


@router.post("/projects", status_code=201, response_model=ProjectObject)
async def create_project(
    body: ProjectContent, context: Context, project: Project, caller: Caller, request_id: WriteId
) -> ProjectObject:
    """Make a project; only an operator may."""
    check_operator(context, caller)
    made = await context.store.create_project(project, body.name, request_id=request_id)
    return ProjectObject(id=made.name, name=made.name, created_at=made.created_at)


@router.get("/projects", response_model=Page[ProjectObject])
async def list_projects(
    context: Context,
    caller: Caller,
    limit: Limit = 20,
    after: Annotated[str | None, Query(description="id of the last item of the page before")] = None,
    order: Literal["asc", "desc"] = "desc",
) -> Page[ProjectObject]:
    """List the projects that were made here, newest first; only an operator may."""
    check_operator(context, caller)
    found, has_more = await context.store.list_projects(limit=limit, after=after, order=order)
    items = [ProjectObject(id=each.name, name=each.name, created_at=each.created_at) for each in found]
    return Page[ProjectObject].of(items, has_more)


@router.get("/projects/{name}", response_model=ProjectLimits)
async def get_limits(name: str, context: Context, caller: Caller) -> ProjectLimits:
    """The limits that are set for a project: an operator asks for any, others for their own."""
    project = await acts_for(context, caller, name)
    return ProjectLimits(id=project, **asdict(await context.store.limits_of(project)))


@router.post("/projects/{name}", response_model=ProjectLimits)
async def set_limits(
    name: str, body: LimitsContent, context: Context, caller: Caller, request_id: WriteId
) -> ProjectLimits:
    """Replace the limits of a project; only an operator may. They count within a second on every server."""
    check_operator(context, caller)
    project = await acts_for(context, caller, name)
    limits = await context.store.set_limits(project, Limits(**body.model_dump()), request_id=request_id)
    return ProjectLimits(id=project, **asdict(limits))


@router.post("/api_keys", status_code=201, response_model=ApiKeyObject)
async def create_api_key(body: ApiKeyContent, context: Context, caller: Caller, request_id: WriteId) -> ApiKeyObject:
    """Make a key. Sent again with the same Idempotency-Key, the answer has no `secret`."""
    project = await acts_for(context, caller, body.project)
    key_id, secret = new_id(IdPrefix.API_KEY), new_secret()
    key = await context.store.create_key(
        project, body.name, sorted(set(body.scopes)), key_id=key_id, digest=digest_of(secret), request_id=request_id
    )
    return ApiKeyObject.of(key, secret if key.id == key_id else None)


@router.get("/api_keys", response_model=Page[ApiKeyObject])
async def list_api_keys(
    context: Context,
    project: Named,
    limit: Limit = 20,
    after: Annotated[str | None, Query(description="id of the last item of the page before")] = None,
    order: Literal["asc", "desc"] = "desc",
) -> Page[ApiKeyObject]:
    """List a project's keys, newest first, revoked ones too. Keys of the settings are not among them."""
    keys, has_more = await context.store.list_keys(project, limit=limit, after=after, order=order)
    return Page[ApiKeyObject].of([ApiKeyObject.of(key) for key in keys], has_more)


@router.post("/api_keys/{key_id}/rotate", status_code=201, response_model=ApiKeyObject)
async def rotate_api_key(
    key_id: str, body: Rotation, context: Context, project: Named, request_id: WriteId
) -> ApiKeyObject:
    """Make a key with the same name and scopes; the old one works for `grace_s` more."""
    made, secret = new_id(IdPrefix.API_KEY), new_secret()
    key = await context.store.rotate_key(
        project, key_id, body.grace_s, key_id=made, digest=digest_of(secret), request_id=request_id
    )
    return ApiKeyObject.of(key, secret if key.id == made else None)


@router.delete("/api_keys/{key_id}", response_model=ApiKeyObject)
async def revoke_api_key(key_id: str, context: Context, project: Named, request_id: WriteId) -> ApiKeyObject:
    """End a key: within a second no port of any server takes it."""
    return ApiKeyObject.of(await context.store.revoke_key(project, key_id, request_id=request_id))
