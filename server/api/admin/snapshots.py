"""/v1/snapshots and /v1/edit_sets/{edit_set}/diff: the sealed states that an edit set has had."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from incomes_server.api.admin.context import Context, Limit, Project
from incomes_server.api.admin.label_schemas import DiffObject, SnapshotObject
from incomes_server.api.admin.schemas import Page, SetRef
from incomes_server.api.admin.timed import TimedRoute
from incomes_server.edits.label import HEAD

router = APIRouter(prefix="/v1", tags=["snapshots"], route_class=TimedRoute)


@router.get("/snapshots", response_model=Page[SnapshotObject])
async def list_snapshots(
    context: Context,
    project: Project,
    edit_set: Annotated[SetRef, Query(description="name or id of the edit set")],
    limit: Limit = 20,
    after: Annotated[str | None, Query(description="id of the last item of the page before")] = None,
    order: Literal["asc", "desc"] = "desc",
) -> Page[SnapshotObject]:
    """List the states that an edit set has had, newest first; one that came back is listed where it came last."""
    found, has_more = await context.store.list_snapshots(project, edit_set, limit=limit, after=after, order=order)
    return Page[SnapshotObject].of([SnapshotObject.of(sealed) for sealed in found], has_more)


@router.get("/snapshots/{snapshot}", response_model=SnapshotObject)
async def get_snapshot(snapshot: str, context: Context, project: Project) -> SnapshotObject:
    """Read a state by its id."""
    return SnapshotObject.of(await context.store.get_snapshot(project, snapshot))


@router.get("/edit_sets/{edit_set}/diff", response_model=DiffObject)
async def diff(
    edit_set: str,
    context: Context,
    project: Project,
    base: Annotated[SetRef, Query(alias="from", description="head, a version, a snapshot's id or a label")],
    target: Annotated[SetRef, Query(alias="to", description="the same")] = HEAD,
) -> DiffObject:
    """Compare two states of an edit set: which edit versions the second has more, and which less."""
    return DiffObject.of(await context.store.diff(project, edit_set, base, target))
