"""Edit sets as JSONL, and a hash of what they say: an export that is imported elsewhere has the same one.

A snapshot's id speaks of edits by their ids, which an engine and its caches go by; a copy has other ids. The hash of
the content is the sum, modulo 2^256, of the SHA-256 of each line's canonical JSON, its `custom_id` left out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from incomes_server.api.admin.batch_schemas import ContentDigest
from incomes_server.api.admin.context import AdminContext, Context, Project
from incomes_server.api.admin.schemas import EditContent, EditObject
from incomes_server.api.admin.timed import TimedRoute
from incomes_server.edits.model import Edit, OnConflict
from incomes_server.store import export

SNAPSHOT_HEADER = "x-incomes-snapshot"
AT_ONCE = 1000
ROW_BYTES = 8

router = APIRouter(tags=["edits"], route_class=TimedRoute)


@router.get(
    "/v1/edits/export", response_class=StreamingResponse, responses={200: {"content": {"application/jsonl": {}}}}
)
async def export_edits(
    context: Context, project: Project, edit_set: Annotated[str | None, Query(description="name or id")] = None
) -> StreamingResponse:
    """The active edits of a set as JSONL that an import takes, the oldest first, at the state that a header names."""
    snapshot, rows = await context.store.read(export.members, project, edit_set or context.settings.default_edit_set)
    headers = {SNAPSHOT_HEADER: snapshot.id}
    return StreamingResponse(_lines(context, rows), media_type="application/jsonl", headers=headers)


@router.get("/v1/edit_sets/{edit_set}/digest", response_model=ContentDigest)
async def digest_edit_set(edit_set: str, context: Context, project: Project) -> ContentDigest:
    """A hash of what the active edits of a set say: equal in two sets that say the same, whatever their ids."""
    snapshot, rows = await context.store.read(export.members, project, edit_set)
    total, count = 0, 0
    async for page in _pages(context, rows):
        total += sum(digest_of(body_of(edit)) for edit in page)
        count += len(page)
    return ContentDigest(
        id=snapshot.edit_set, snapshot=snapshot.id, num_edits=count, content_sha256=f"{total % 2**256:064x}"
    )


def body_of(edit: Edit) -> dict[str, Any]:
    """What an edit says, as the body that would add it; fields without a value, or with the usual one, are left out."""
    shown = EditObject.of(edit).model_dump(mode="json", exclude_none=True)
    usual = {"on_conflict": OnConflict.FLAG, "kind": "fact"}
    shown = {name: value for name, value in shown.items() if usual.get(name) != value}
    return {name: shown[name] for name in EditContent.model_fields if shown.get(name)}


def digest_of(body: dict[str, Any]) -> int:
    """SHA-256 of the body's canonical JSON (sorted keys, no white space, UTF-8)."""
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return int.from_bytes(hashlib.sha256(text.encode()).digest())


async def _lines(context: AdminContext, rows: bytes) -> AsyncIterator[bytes]:
    async for page in _pages(context, rows):
        lines = ({"custom_id": edit.id, **body_of(edit)} for edit in page)
        yield b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines)


async def _pages(context: AdminContext, rows: bytes) -> AsyncIterator[list[Edit]]:
    size = AT_ONCE * ROW_BYTES
    for start in range(0, len(rows), size):
        yield await context.store.read(export.contents, rows[start : start + size])
