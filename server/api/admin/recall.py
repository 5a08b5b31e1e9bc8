"""POST /v1/edits/{edit_id}/recall: the text of a verbatim edit, said from its vectors where it has some."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query
from incomes_server.api.admin.context import AdminContext, Context, Project, Timeout, WriteId
from incomes_server.api.admin.timed import TimedRoute
from incomes_server.api.admin.verbatim_schemas import RecallObject
from incomes_server.api.http.recalls import settle_recall
from incomes_server.edits import VerbatimText

STORED_TEXT = "stored_text"
NO_ENGINE, TOO_SLOW = "no engine says texts here", "the engine did not say it within `timeout_s`"

router = APIRouter(prefix="/v1/edits", tags=["edits"], route_class=TimedRoute)


@router.post("/{edit_id}/recall", response_model=RecallObject)
async def recall_edit(
    edit_id: str,
    context: Context,
    project: Project,
    request_id: WriteId,
    version: Annotated[int | None, Query(ge=1, le=2**31 - 1, description="default: the newest")] = None,
    timeout_s: Timeout = 30.0,
) -> RecallObject:
    """Say the text of a verbatim edit, to the byte: from its vectors, block by block checked, or else as it is stored;
    `source` and `reason` say which and why."""
    newest = (await context.store.get_edit(project, edit_id, version)).version
    found = await context.store.get_verbatim(project, edit_id, newest)
    try:
        async with asyncio.timeout(min(timeout_s, context.settings.max_wait_s)):
            text, source, reason = await _said(context, found)
    except TimeoutError:
        text, source, reason = found.text, STORED_TEXT, TOO_SLOW
    await context.store.note_recall(project, edit_id, newest, source, request_id=request_id)
    return RecallObject(id=edit_id, version=newest, text=text, source=source, state=found.state, reason=reason)


async def _said(context: AdminContext, found: VerbatimText) -> tuple[str, str, str | None]:
    """The text, what it came from, and why not from vectors."""
    if context.recaller is None:
        return found.text, STORED_TEXT, found.reason or NO_ENGINE
    from incomes_plugin.lab.verbatim.serving import RecallStream

    stream = RecallStream(context.recaller, found.text, found.record, found.reason)
    text = "".join([piece async for piece in stream.pieces()])
    await settle_recall(context.store, (found.edit_id, found.version), stream)
    return text, stream.source, stream.reason
