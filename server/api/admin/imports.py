"""POST /v1/edits/import: many edits from JSONL, with one result per line and back-pressure from the queue."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from incomes_server.api.admin.context import AdminContext, Context, Project, WaitToAdd, WriteId
from incomes_server.api.admin.import_lines import Line, parse_lines
from incomes_server.api.admin.schemas import ImportResult, LineResult, RequestCounts
from incomes_server.api.admin.timed import TimedRoute
from incomes_server.api.admin.writes import status_code, submit, wait_for_edits
from incomes_server.api.http.errors import envelope
from incomes_server.edits.model import Edit, EditStatus

from incomes_plugin.errors import CompressionFailed, EditConflict, EditSetNotFound, IncomesError, QueueFull

router = APIRouter(prefix="/v1/edits", tags=["edits"], route_class=TimedRoute)
RETRY_S = 0.05


@router.post("/import", status_code=202, response_model=ImportResult, responses={200: {"model": ImportResult}})
async def import_edits(
    request: Request,
    context: Context,
    project: Project,
    request_id: WriteId,
    wait: WaitToAdd,
    response: Response,
    edit_set: Annotated[str | None, Query(description="edit set of lines that name none")] = None,
    dry_run: Annotated[bool, Query(description="check every line, add nothing")] = False,
) -> ImportResult:
    """Add the edits of a JSONL body.

    A wrong line never stops the others, and every line is accounted for: `completed + failed == total`.
    """
    if edit_set not in (None, context.settings.default_edit_set):
        await context.store.get_edit_set(project, edit_set or "")  # 404, also where nothing would be written
    raw = await request.body()
    lines = await asyncio.to_thread(lambda: list(parse_lines(raw.split(b"\n"), context.tokenizer)))
    target = edit_set or context.settings.default_edit_set
    importer = _Importer(context, project, target, request_id, time.monotonic() + context.settings.max_wait_s)
    results = {line.number: _result(line, None, line.error) for line in lines}
    edits: list[Edit] = []
    good = [line for line in lines if line.edit]
    if dry_run:
        for line, missing in await importer.check(good):
            results[line.number] = _result(line, None, missing)
    else:
        for line, outcome in await importer.run(good):
            edit, error = (outcome, None) if isinstance(outcome, Edit) else (None, outcome)
            results[line.number] = _result(line, edit, error)
            edits += [edit] if edit else []
    # The timeout is for the wait: it begins when every line is durable.
    edits, reached = await wait_for_edits(context, project, edits, replace(wait, started=time.monotonic()))
    _refresh(results, edits)
    response.status_code = 200 if dry_run else status_code(wait, reached, done=200)
    failed = sum(1 for r in results.values() if r.error is not None)
    return ImportResult(
        id="import_" + hashlib.sha256(request_id.encode()).hexdigest()[:24],
        dry_run=dry_run,
        request_counts=RequestCounts(total=len(results), completed=len(results) - failed, failed=failed),
        reached=reached,
        data=list(results.values()),
    )


class _Importer:
    """Adds valid lines batch by batch: one transaction and one queue submission each."""

    def __init__(self, context: AdminContext, project: str, edit_set: str, request_id: str, deadline: float) -> None:
        self.context = context
        self.project = project
        self.default_set = edit_set
        self.request_id = request_id
        self.deadline = deadline

    async def check(self, lines: Sequence[Line]) -> list[tuple[Line, EditSetNotFound]]:
        """Lines whose edit set the project does not have; the default one comes with the first edit."""
        missing: dict[str, EditSetNotFound] = {}
        for edit_set in {line.edit_set for line in lines if line.edit_set} - {self.context.settings.default_edit_set}:
            try:
                await self.context.store.get_edit_set(self.project, edit_set)
            except EditSetNotFound as error:
                missing[edit_set] = error
        return [(line, missing[line.edit_set]) for line in lines if line.edit_set in missing]

    async def run(self, lines: Sequence[Line]) -> list[tuple[Line, Edit | IncomesError]]:
        """Add all lines; each comes back with its edit or its error."""
        by_set: dict[str, list[Line]] = {}
        for line in lines:
            by_set.setdefault(line.edit_set or self.default_set, []).append(line)
        done: list[tuple[Line, Edit | IncomesError]] = []
        size = self.context.settings.import_batch
        for edit_set, members in by_set.items():
            for start in range(0, len(members), size):
                batch = members[start : start + size]
                done += zip(batch, await self._add(edit_set, batch), strict=True)
        return done

    async def _add(self, edit_set: str, batch: Sequence[Line]) -> Sequence[Edit | IncomesError]:
        request_id = f"{self.request_id}/{edit_set}/{batch[0].number}"
        news = [line.edit for line in batch if line.edit]
        try:
            if edit_set == self.context.settings.default_edit_set:
                await self.context.store.ensure_edit_set(self.project, edit_set)
            await self._wait_for_queue(len(news))
            async with self.context.room.reserve(self.project, [len(new.token_ids) for new in news]):
                edits = await self.context.store.add_edits(self.project, edit_set, news, request_id=request_id)
            await submit(self.context, edits, news, interactive=False)
        except EditConflict as error:
            # One line holds an external_id that is taken: it alone fails.
            if len(batch) == 1:
                return [error]
            return [(await self._add(edit_set, [line]))[0] for line in batch]
        except IncomesError as error:
            return [error] * len(batch)
        return edits

    async def _wait_for_queue(self, num_edits: int) -> None:
        """Wait while the queue is full: this is the back-pressure of the import."""
        while True:
            try:
                return await self.context.queue.admit(num_edits, interactive=False)
            except QueueFull:
                if time.monotonic() > self.deadline:
                    raise
                await asyncio.sleep(RETRY_S)


def _result(line: Line, edit: Edit | None, error: IncomesError | None) -> LineResult:
    return LineResult(
        line=line.number,
        custom_id=line.custom_id,
        edit=edit.id if edit else None,
        status=edit.status if edit else None,
        error=dict(envelope(error)["error"]) if error else None,
    )


def _refresh(results: dict[int, LineResult], edits: Sequence[Edit]) -> None:
    """Show each edit's state after the wait; one that failed to compress is a failed line."""
    now = {edit.id: edit for edit in edits}
    for result in results.values():
        edit = now.get(result.edit or "")
        if edit is None:
            continue
        result.status = edit.status
        if edit.status is EditStatus.FAILED:
            failure = CompressionFailed(f"{edit.id} could not be compressed: {edit.status_reason}")
            result.error = dict(envelope(failure)["error"])
