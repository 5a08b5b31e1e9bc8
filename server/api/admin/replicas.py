"""/v1/replicas: what each engine has applied. Operators of every project may look; it names no other project's text."""

from __future__ import annotations

from fastapi import APIRouter
from incomes_server.api.admin.context import Context, Project
from incomes_server.api.admin.schemas import Page, ReplicaObject
from incomes_server.api.admin.timed import TimedRoute

router = APIRouter(prefix="/v1/replicas", tags=["replicas"], route_class=TimedRoute)


@router.get("", response_model=Page[ReplicaObject])
async def list_replicas(context: Context, project: Project) -> Page[ReplicaObject]:
    """List the engines that poll the store, with the version of each edit set and the move of each label that they
    have acknowledged."""
    own = await context.store.versions_of(project) | await context.store.label_moves_of(project)
    data = [ReplicaObject.of(state, own) for state in await context.store.replicas()]
    return Page[ReplicaObject].of(data, has_more=False)
