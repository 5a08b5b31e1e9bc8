"""/v1/projects/{name}/data_key: the key that a project's texts and gists are encrypted with."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from incomes_server.api.admin.api_keys import acts_for
from incomes_server.api.admin.context import Caller, Context, WriteId
from incomes_server.api.admin.tenancy_schemas import DataKeyObject
from incomes_server.api.admin.timed import TimedRoute

router = APIRouter(prefix="/v1/projects/{name}/data_key", tags=["projects and keys"], route_class=TimedRoute)


async def project_in_path(name: str, context: Context, caller: Caller) -> str:
    """Raises ProjectNotFound."""
    return await acts_for(context, caller, name)


Owned = Annotated[str, Depends(project_in_path)]


@router.get("", response_model=DataKeyObject)
async def get_data_key(context: Context, project: Owned) -> DataKeyObject:
    """Which key, and how much is not under it yet."""
    return DataKeyObject.of(await context.store.data_key(project))


@router.post("/rotate", response_model=DataKeyObject)
async def rotate_data_key(context: Context, project: Owned, request_id: WriteId) -> DataKeyObject:
    """A new key; what is there is encrypted again in small transactions while the server serves."""
    return DataKeyObject.of(await context.store.rotate_data_key(project, request_id=request_id))


@router.delete("", response_model=DataKeyObject)
async def erase_data_key(context: Context, project: Owned, request_id: WriteId) -> DataKeyObject:
    """Delete all edit sets of the project and destroy its keys: its texts are gone for good."""
    return DataKeyObject.of(await context.store.erase_data_keys(project, request_id=request_id))
