"""Calls of files, batches and exports; see `calls.py`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from incomes_server.api.admin.batch_schemas import BatchObject, ContentDigest, FileDeleted, FileObject
from incomes_server.api.admin.schemas import Page
from incomes_server.client.calls import LONG_TIMEOUT_S, Call, LinesCall, ListCall, Order, given, list_call, segment
from incomes_server.edits.model import OnConflict


def digest_edit_set(edit_set: str) -> Call[ContentDigest]:
    """A hash of what the set's active edits say: equal in two sets that say the same."""
    path = f"/v1/edit_sets/{segment(edit_set)}/digest"
    return Call("GET", path, ContentDigest.model_validate, timeout_s=LONG_TIMEOUT_S)


def export_edits(*, edit_set: str | None = None) -> LinesCall:
    """The active edits of a set as JSONL, the oldest first."""
    return LinesCall("/v1/edits/export", {"edit_set": edit_set})


def upload_file(path: Path) -> Call[FileObject]:
    """Send a file of JSONL."""
    return Call("POST", "/v1/files", FileObject.model_validate, upload=path, timeout_s=LONG_TIMEOUT_S)


def get_file(file_id: str) -> Call[FileObject]:
    """What is known of a file."""
    return Call("GET", f"/v1/files/{segment(file_id)}", FileObject.model_validate)


def list_files(*, purpose: str | None = None, order: Order = "desc", most: int | None = None) -> ListCall[FileObject]:
    """The project's files, the newest first."""
    return list_call("/v1/files", Page[FileObject], most, purpose=purpose, order=order)


def delete_file(file_id: str) -> Call[FileDeleted]:
    """Delete a file and what is in it."""
    return Call("DELETE", f"/v1/files/{segment(file_id)}", FileDeleted.model_validate)


def file_content(file_id: str) -> LinesCall:
    """The lines of a file: as they were uploaded, or the results of an import."""
    return LinesCall(f"/v1/files/{segment(file_id)}/content")


def create_batch(
    file_id: str,
    *,
    edit_set: str | None = None,
    dry_run: bool = False,
    on_conflict: OnConflict | str | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Call[BatchObject]:
    """Import an uploaded file, as a job of the server."""
    body = {"input_file_id": file_id, "endpoint": "/v1/edits", "edit_set": edit_set, "metadata": metadata}
    body |= {"on_conflict": on_conflict}
    return Call("POST", "/v1/batches", BatchObject.model_validate, json=given(body | {"dry_run": dry_run}))


def get_batch(batch_id: str) -> Call[BatchObject]:
    """How far an import is."""
    return Call("GET", f"/v1/batches/{segment(batch_id)}", BatchObject.model_validate)


def list_batches(*, order: Order = "desc", most: int | None = None) -> ListCall[BatchObject]:
    """The project's imports, the newest first."""
    return list_call("/v1/batches", Page[BatchObject], most, order=order)


def cancel_batch(batch_id: str) -> Call[BatchObject]:
    """Read no more lines of an import."""
    return Call("POST", f"/v1/batches/{segment(batch_id)}/cancel", BatchObject.model_validate)
