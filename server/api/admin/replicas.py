"""/v1/replicas and /v1/workers: what each engine has applied, and who compresses. Operators of every project may look;
neither names another project's text."""

from __future__ import annotations

from fastapi import APIRouter
from incomes_server.api.admin.context import Context, Project
from incomes_server.api.admin.replica_schemas import ReplicaObject, WorkerObject
from incomes_server.api.admin.schemas import Page
from incomes_server.api.admin.timed import TimedRoute

router = APIRouter(prefix="/v1", tags=["replicas"], route_class=TimedRoute)


@router.get("/replicas", response_model=Page[ReplicaObject])
async def list_replicas(context: Context, project: Project) -> Page[ReplicaObject]:
    """List the engines that poll the store, with the version of each edit set and the move of each label that they
    have acknowledged."""
    own = await context.store.versions_of(project) | await context.store.label_moves_of(project)
    data = [ReplicaObject.of(state, own) for state in await context.store.replicas()]
    return Page[ReplicaObject].of(data, has_more=False)


@router.get("/workers", response_model=Page[WorkerObject])
async def list_workers(context: Context, project: Project) -> Page[WorkerObject]:
    """List who compresses edits: engines that serve, and those that do nothing else."""
    found = [WorkerObject.of(state) for state in await context.queue.workers()]
    return Page[WorkerObject].of(found, has_more=False)
