"""/v1/replicas: what each engine has applied. Operators of every project may look; it names no other project's text."""

from __future__ import annotations

from fastapi import APIRouter
from incomes_server.api.context import Context, Project
from incomes_server.api.schemas import Page, ReplicaObject

router = APIRouter(prefix="/v1/replicas", tags=["replicas"])


@router.get("", response_model=Page[ReplicaObject])
async def list_replicas(context: Context, project: Project) -> Page[ReplicaObject]:
    """List the engines that poll the store, with the version of each edit set they have acknowledged."""
    own = await own_edit_sets(context, project)
    data = [ReplicaObject.of(state, own) for state in await context.store.replicas()]
    return Page[ReplicaObject].of(data, has_more=False)


async def own_edit_sets(context: Context, project: Project) -> frozenset[str]:
    """Ids of the project's edit sets: positions of other projects are not shown."""
    ids: list[str] = []
    has_more = True
    while has_more:
        after = ids[-1] if ids else None
        page, has_more = await context.store.list_edit_sets(project, limit=100, after=after, order="asc")
        ids += [item.id for item in page]
    return frozenset(ids)
