"""POST /v1/edits/import: many edits from JSONL, with one result per line and back-pressure from the queue."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from incomes_server.api.admin.context import AdminContext, Context, Project, Wait, WaitToAdd, WriteId
from incomes_server.api.admin.import_lines import Line, parse_lines, with_policy
from incomes_server.api.admin.schemas import ImportResult, LineResult, RequestCounts, WaitFor
from incomes_server.api.admin.timed import GRACE_S, TimedRoute, answered_within
from incomes_server.api.admin.writes import admitted, failure_of, status_code, store_edits, submit, wait_for_edits
from incomes_server.api.http.errors import envelope
from incomes_server.edits.model import Edit, NewEdit, OnConflict

from incomes_plugin.errors import (
    EditConflict,
    EditNotFound,
    EditSetNotFound,
    IncomesError,
    NotReady,
    QueueFull,
)

router = APIRouter(prefix="/v1/edits", tags=["edits"], route_class=TimedRoute)
RETRY_S = 0.05
NO_LINES = '"data":[]}'


@router.post("/import", status_code=202, response_model=ImportResult, responses={200: {"model": ImportResult}})
async def import_edits(
    request: Request,
    context: Context,
    project: Project,
    request_id: WriteId,
    wait: WaitToAdd,
    edit_set: Annotated[str | None, Query(description="edit set of lines that name none")] = None,
    dry_run: Annotated[bool, Query(description="check every line, add nothing")] = False,
    on_conflict: Annotated[OnConflict | None, Query(description="of lines that do not say it themselves")] = None,
) -> Response:
    """Add the edits of a JSONL body.

    A wrong line never stops the others, and every line is accounted for: `completed + failed == total`.
    """
    importer = _Importer(context, project, edit_set, request_id, wait)
    await importer.check_default_set()  # 404, also where nothing would be written
    raw = await request.body()
    lines = await asyncio.to_thread(lambda: list(parse_lines(BytesIO(raw), context.tokenizer)))
    lines = [with_policy(line, on_conflict) for line in lines]
    good = [line for line in lines if line.edit]
    outcomes = await (importer.check(good) if dry_run else importer.run(good))
    edits = [outcome for outcome in outcomes.values() if isinstance(outcome, Edit)]
    # The timeout is for the wait: it begins when every line is durable.
    edits, reached = await importer.wait(edits, replace(wait, started=time.monotonic()))
    content = await asyncio.to_thread(_render, request_id, lines, outcomes, edits, reached, dry_run=dry_run)
    status = 200 if dry_run else status_code(wait, reached, done=200)
    return Response(content, status, media_type="application/json")


class _Importer:
    """Adds valid lines batch by batch: one transaction and one queue submission each.

    Args:
        edit_set: of lines that name none; None = the default one.
        wait: how long the store may take for each answer.
    """

    def __init__(self, context: AdminContext, project: str, edit_set: str | None, request_id: str, wait: Wait) -> None:
        self.context = context
        self.project = project
        self.default_set = context.settings.default_edit_set if edit_set is None else edit_set
        self.request_id = request_id
        self.limit_s = wait.timeout_s + GRACE_S
        self.deadline = time.monotonic() + context.settings.max_wait_s

    async def check_default_set(self) -> None:
        """Raises EditSetNotFound, NotReady."""
        if self.default_set != self.context.settings.default_edit_set:
            async with answered_within(self.limit_s):
                await self.context.store.get_edit_set(self.project, self.default_set)

    async def check(self, lines: Sequence[Line]) -> dict[int, Edit | IncomesError]:
        """Lines whose edit set the project does not have, by number; the default one comes with the first edit."""
        missing: dict[str, IncomesError] = {}
        for edit_set in {line.edit_set for line in lines if line.edit_set} - {self.context.settings.default_edit_set}:
            try:
                async with answered_within(self.limit_s):
                    await self.context.store.get_edit_set(self.project, edit_set)
            except EditSetNotFound as error:
                missing[edit_set] = error
        return {line.number: missing[line.edit_set] for line in lines if line.edit_set in missing}

    async def run(self, lines: Sequence[Line]) -> dict[int, Edit | IncomesError]:
        """Add all lines; each number comes back with its edit or its error.

        Raises:
            NotReady: the store did not answer, and nothing was stored before. Later on, the lines that are left fail.
        """
        by_set: dict[str, list[Line]] = {}
        for line in lines:
            by_set.setdefault(line.edit_set or self.default_set, []).append(line)
        done: dict[int, Edit | IncomesError] = {}
        size = self.context.settings.import_batch
        batches = [
            (edit_set, members[start : start + size])
            for edit_set, members in by_set.items()
            for start in range(0, len(members), size)
        ]
        hangs: NotReady | None = None
        for edit_set, batch in batches:
            try:
                found = [hangs] * len(batch) if hangs else await self._add(edit_set, batch)
            except NotReady as error:
                if not any(isinstance(outcome, Edit) for outcome in done.values()):
                    raise
                hangs, found = error, [error] * len(batch)
            done.update(zip((line.number for line in batch), found, strict=True))
        return done

    async def wait(self, edits: Sequence[Edit], wait: Wait) -> tuple[list[Edit], WaitFor]:
        """See `wait_for_edits`. A store that hangs leaves them accepted: they are durable."""
        try:
            async with answered_within(wait.timeout_s + GRACE_S):
                return await wait_for_edits(self.context, self.project, edits, wait)
        except NotReady:
            return list(edits), WaitFor.ACCEPTED

    async def _add(self, edit_set: str, batch: Sequence[Line]) -> Sequence[Edit | IncomesError]:
        """Raises NotReady: the store did not answer."""
        request_id = f"{self.request_id}/{edit_set}/{batch[0].number}"
        news = [line.edit for line in batch if line.edit]
        try:
            await self._wait_for_queue(len(news))
            async with answered_within(self.limit_s):
                edits = await self._store(edit_set, news, request_id)
        except (EditConflict, EditNotFound) as error:
            # One line holds a taken external_id, or supersedes what is not there: it alone fails.
            if len(batch) == 1:
                return [error]
            return [(await self._add(edit_set, [line]))[0] for line in batch]
        except NotReady:
            raise
        except IncomesError as error:
            return [error] * len(batch)
        return edits

    async def _store(self, edit_set: str, news: Sequence[NewEdit], request_id: str) -> Sequence[Edit]:
        async with admitted(self.context, self.project, request_id, news, queued=True):
            edits = await store_edits(self.context, self.project, edit_set, news, request_id)
        await submit(self.context, edits, news, interactive=False)
        return edits

    async def _wait_for_queue(self, num_edits: int) -> None:
        """Wait while the queue is full: this is the back-pressure of the import."""
        while True:
            try:
                async with answered_within(self.limit_s):
                    return await self.context.queue.admit(num_edits, interactive=False)
            except QueueFull:
                if time.monotonic() > self.deadline:
                    raise
                await asyncio.sleep(RETRY_S)


def _render(
    request_id: str,
    lines: Sequence[Line],
    outcomes: Mapping[int, Edit | IncomesError],
    edits: Sequence[Edit],
    reached: WaitFor,
    *,
    dry_run: bool,
) -> bytes:
    """The answer, `ImportResult` as JSON. For a thread: line by line, so that it never holds the event loop up.

    Args:
        edits: as they are after the wait.
    """
    now = {edit.id: edit for edit in edits}
    rendered, failed = [], 0
    for line in lines:
        result = _result(line, outcomes.get(line.number, line.error), now)
        failed += result.error is not None
        rendered.append(result.model_dump_json())
    answer = ImportResult(
        id="import_" + hashlib.sha256(request_id.encode()).hexdigest()[:24],
        dry_run=dry_run,
        request_counts=RequestCounts(total=len(lines), completed=len(lines) - failed, failed=failed),
        reached=reached,
        data=[],
    )
    empty = answer.model_dump_json()
    assert empty.endswith(NO_LINES)
    return f'{empty.removesuffix(NO_LINES)}"data":[{",".join(rendered)}]}}'.encode()


def _result(line: Line, outcome: Edit | IncomesError | None, now: Mapping[str, Edit]) -> LineResult:
    """What has become of a line; an edit that failed to compress is a failed line."""
    edit = now.get(outcome.id, outcome) if isinstance(outcome, Edit) else None
    error = None if isinstance(outcome, Edit) else outcome
    if edit is not None and (failure := failure_of(edit)) is not None:
        error = failure
    return LineResult(
        line=line.number,
        custom_id=line.custom_id,
        edit=edit.id if edit else None,
        status=edit.status if edit else None,
        error=dict(envelope(error)["error"]) if error else None,
    )
