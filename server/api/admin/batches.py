"""/v1/batches: imports of uploaded files as jobs. `import_runner.py` does the work; here they are made and seen."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from incomes_server.api.admin.batch_schemas import BatchContent, BatchObject
from incomes_server.api.admin.context import Context, Limit, Project, WriteId
from incomes_server.api.admin.schemas import Page
from incomes_server.api.admin.timed import TimedRoute
from incomes_server.edits import OnConflict
from incomes_server.store import batches, commands

router = APIRouter(prefix="/v1/batches", tags=["batches"], route_class=TimedRoute)


@router.post("", response_model=BatchObject)
async def create_batch(body: BatchContent, context: Context, project: Project, request_id: WriteId) -> BatchObject:
    """Import an uploaded file. The job goes on by itself, also after any end of the server."""
    edit_set = body.edit_set or context.settings.default_edit_set
    if edit_set == context.settings.default_edit_set:
        await context.store.ensure_edit_set(project, edit_set)
    policy = None if body.on_conflict is None else OnConflict(body.on_conflict)
    command = commands.CreateBatch(
        project, request_id, body.input_file_id, edit_set, body.dry_run, body.metadata, policy
    )
    batch = BatchObject.of(await context.store.write(command))
    context.imports.set()
    return batch


@router.get("", response_model=Page[BatchObject])
async def list_batches(
    context: Context,
    project: Project,
    limit: Limit = 20,
    after: Annotated[str | None, Query(description="id of the last item of the page before")] = None,
    order: Literal["asc", "desc"] = "desc",
) -> Page[BatchObject]:
    """List the project's imports, newest first."""
    found, has_more = await context.store.read(batches.list_batches, project, limit=limit, after=after, order=order)
    return Page[BatchObject].of([BatchObject.of(batch) for batch in found], has_more)


@router.get("/{batch_id}", response_model=BatchObject)
async def get_batch(batch_id: str, context: Context, project: Project) -> BatchObject:
    """Read how far an import is."""
    return BatchObject.of(await context.store.read(batches.get_batch, project, batch_id))


@router.post("/{batch_id}/cancel", response_model=BatchObject)
async def cancel_batch(batch_id: str, context: Context, project: Project, request_id: WriteId) -> BatchObject:
    """Read no more lines of the file; edits that have been added stay."""
    batch = BatchObject.of(await context.store.write(commands.CancelBatch(project, request_id, batch_id)))
    context.imports.set()
    return batch
