"""/v1/files: JSONL to import, and the results of imports. A file is never in memory as a whole."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Annotated, Any, BinaryIO, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from incomes_server.api.admin.batch_schemas import BatchLineResult, FileDeleted, FileObject
from incomes_server.api.admin.context import AdminContext, Context, Limit, Project, WriteId
from incomes_server.api.admin.schemas import Page
from incomes_server.api.admin.timed import TimedRoute
from incomes_server.api.admin.upload_form import form_of
from incomes_server.edits import IdPrefix, new_id
from incomes_server.edits.batch import FilePart, StoredFile
from incomes_server.store import batches, commands, files
from starlette.datastructures import UploadFile

from incomes_plugin.errors import IncomesError, InvalidValue, StoredFileNotFound, UnknownParameter

FILES_PATH = "/v1/files"
PURPOSES = ("edits", "batch")
MAX_LINE_BYTES = PART_BYTES = SENT_BYTES = 1 << 20
RESULTS_AT_ONCE = 1000
FORM: dict[str, Any] = {
    "type": "object",
    "required": ["file", "purpose"],
    "additionalProperties": False,
    "properties": {
        "file": {"type": "string", "format": "binary", "description": "JSONL"},
        "purpose": {"type": "string", "enum": list(PURPOSES)},
    },
}

router = APIRouter(prefix=FILES_PATH, tags=["files"], route_class=TimedRoute)


@router.post(
    "",
    response_model=FileObject,
    openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": FORM}}}},
)
async def upload_file(request: Request, context: Context, project: Project, request_id: WriteId) -> FileObject:
    """Upload JSONL, as OpenAI's `files.create` does; `POST /v1/batches` imports it."""
    form = await form_of(request)
    try:
        for name in form:
            if name not in FORM["properties"]:
                raise UnknownParameter(f"unknown field `{name}`", param=name)
        purpose, sent = form.get("purpose"), form.get("file")
        if purpose not in PURPOSES:
            raise InvalidValue(f"`purpose` is one of {', '.join(PURPOSES)}", param="purpose")
        if not isinstance(sent, UploadFile):
            raise InvalidValue("`file` is the file itself, as multipart/form-data sends it", param="file")
        return FileObject.of(await _store(context, project, request_id, sent))
    finally:
        await form.close()


@router.get("", response_model=Page[FileObject])
async def list_files(
    context: Context,
    project: Project,
    purpose: Annotated[str | None, Query(description="`edits` or `batch_output`")] = None,
    limit: Limit = 20,
    after: Annotated[str | None, Query(description="id of the last item of the page before")] = None,
    order: Literal["asc", "desc"] = "desc",
) -> Page[FileObject]:
    """List the project's files, newest first."""
    found, has_more = await context.store.read(
        files.list_files, project, purpose=purpose, limit=limit, after=after, order=order
    )
    return Page[FileObject].of([FileObject.of(file) for file in found], has_more)


@router.get("/{file_id}", response_model=FileObject)
async def get_file(file_id: str, context: Context, project: Project) -> FileObject:
    """Read what is known of a file."""
    return FileObject.of(await context.store.read(files.get_file, project, file_id))


@router.get(
    "/{file_id}/content", response_class=StreamingResponse, responses={200: {"content": {"application/jsonl": {}}}}
)
async def get_file_content(file_id: str, context: Context, project: Project) -> StreamingResponse:
    """Read a file: the lines as they were uploaded, or the results of an import."""
    file = await context.store.read(files.get_file, project, file_id)
    if not file.has_content:
        raise StoredFileNotFound(f"the lines of {file.id} have been imported; their texts are in the edits alone")
    content = _uploaded(context, file) if file.batch is None else results_of(context, file.batch, file.of_errors)
    return StreamingResponse(content, media_type="application/jsonl")


@router.delete("/{file_id}", response_model=FileDeleted)
async def delete_file(file_id: str, context: Context, project: Project, request_id: WriteId) -> FileDeleted:
    """Delete a file and what is in it; edits that came from it stay."""
    return FileDeleted(id=await context.store.write(commands.DeleteFile(project, request_id, file_id)))


async def results_of(context: AdminContext, batch: str, of_errors: bool) -> AsyncIterator[bytes]:
    """Lines of an import that failed, or those that did not, as JSONL."""
    number = 0
    while page := await context.store.read(batches.lines_after, batch, number, RESULTS_AT_ONCE):
        number = page[-1].number
        wanted = [outcome for outcome in page if (outcome.error is not None) is of_errors]
        yield b"".join(BatchLineResult.of(batch, outcome).model_dump_json().encode() + b"\n" for outcome in wanted)


async def _uploaded(context: AdminContext, file: StoredFile) -> AsyncIterator[bytes]:
    for position in range(file.num_parts):
        yield (await context.store.read(files.get_part, file.id, position)).content


async def _store(context: AdminContext, project: str, request_id: str, sent: UploadFile) -> StoredFile:
    """Keep the file part by part; without its last write nothing of it is ever seen, or left."""
    file_id = new_id(IdPrefix.FILE)
    try:
        return await _store_as(context, project, request_id, sent, file_id)
    except BaseException:
        with suppress(IncomesError):
            await context.store.write(commands.DropFileParts(file_id))
        raise


async def _store_as(context: AdminContext, project: str, request_id: str, sent: UploadFile, file_id: str) -> StoredFile:
    digest, num_bytes, num_parts = hashlib.sha256(), 0, 0
    parts = parts_of(sent.file, context.settings.import_batch)
    while some := await asyncio.to_thread(_take, parts):
        for part in some:
            digest.update(part.content)
            num_bytes += len(part.content)
        num_parts += len(some)
        await context.store.write(commands.AddFileParts(project, file_id, tuple(some)))
    if num_parts == 0:
        raise InvalidValue("the file has no lines", param="file")
    name = (sent.filename or "file.jsonl").replace("\0", "")[-128:]
    limit = context.settings.max_file_bytes_per_project
    kept = commands.KeepFile(
        project, request_id, name, "edits", num_bytes, num_parts, digest.hexdigest(), limit, file_id=file_id
    )
    file: StoredFile = await context.store.write(kept)
    return file


def _take(parts: Iterator[FilePart]) -> list[FilePart]:
    """The next parts, `SENT_BYTES` of them or a little more."""
    taken: list[FilePart] = []
    size = 0
    for part in parts:
        taken.append(part)
        size += len(part.content)
        if size >= SENT_BYTES:
            break
    return taken


def parts_of(file: BinaryIO | Any, max_lines: int) -> Iterator[FilePart]:
    """Cut a file of lines into parts of whole lines. Raises InvalidValue: a line is longer than any edit can be."""
    position, first, number, full, content = 0, 1, 0, 0, bytearray()
    while raw := file.readline(MAX_LINE_BYTES + 1):
        if len(raw) > MAX_LINE_BYTES:
            raise InvalidValue(f"line {number + 1} has more than {MAX_LINE_BYTES} bytes", param="file")
        if full == max_lines or len(content) + len(raw) > PART_BYTES:
            yield FilePart(position, first, full, bytes(content))
            position, first, full = position + 1, number + 1, 0
            content.clear()
        number += 1
        full += bool(raw.strip())
        content += raw
    if full:
        yield FilePart(position, first, full, bytes(content))
