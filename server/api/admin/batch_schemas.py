"""JSON shapes of files and batches, OpenAI's with a few fields more. Light: the Python client uses them too."""

from __future__ import annotations

from typing import Any, Literal, Self

from incomes_server.api.admin.schemas import Metadata, OnConflictName, RequestBody, RequestCounts, Resource, SetRef
from incomes_server.edits import OnConflict
from incomes_server.edits.batch import Batch, BatchStatus, LineOutcome, StoredFile
from pydantic import Field


class FileObject(Resource):
    """A file; `status` is `processed` once its content is gone, because its lines have been imported."""

    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: Literal["uploaded", "processed"]
    num_lines: int

    @classmethod
    def of(cls, file: StoredFile) -> Self:
        """Render a stored file."""
        return cls(
            id=file.id,
            bytes=file.num_bytes,
            created_at=file.created_at,
            filename=file.filename,
            purpose=file.purpose,
            status="uploaded" if file.has_content else "processed",
            num_lines=file.num_lines,
        )


class FileDeleted(Resource):
    """Answer to the deletion of a file."""

    object: Literal["file"] = "file"
    deleted: Literal[True] = True


class BatchContent(RequestBody):
    """Body of `POST /v1/batches`; `edit_set` and `on_conflict` are for lines that do not say it."""

    input_file_id: str = Field(min_length=1, max_length=128)
    endpoint: Literal["/v1/edits"]
    completion_window: Literal["24h"] = "24h"
    edit_set: SetRef | None = None
    dry_run: bool = False
    on_conflict: OnConflictName | None = None
    metadata: Metadata = Field(default_factory=dict)


class BatchObject(Resource):
    """An import. At its end `completed + failed == total`, and every line is in one of the two files of results."""

    object: Literal["batch"] = "batch"
    endpoint: Literal["/v1/edits"] = "/v1/edits"
    completion_window: Literal["24h"] = "24h"
    status: BatchStatus
    input_file_id: str
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    finalizing_at: int | None
    completed_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    metadata: dict[str, str]
    edit_set: str
    dry_run: bool
    on_conflict: OnConflict | None

    @classmethod
    def of(cls, batch: Batch) -> Self:
        """Render a stored import."""
        return cls(
            id=batch.id,
            status=batch.status,
            input_file_id=batch.input_file,
            output_file_id=batch.output_file,
            error_file_id=batch.error_file,
            created_at=batch.created_at,
            in_progress_at=batch.in_progress_at,
            finalizing_at=batch.finalizing_at,
            completed_at=batch.ended_at if batch.status is BatchStatus.COMPLETED else None,
            cancelling_at=batch.cancelling_at,
            cancelled_at=batch.ended_at if batch.status is BatchStatus.CANCELLED else None,
            request_counts=RequestCounts(total=batch.total, completed=batch.completed, failed=batch.failed),
            metadata=batch.metadata,
            edit_set=batch.edit_set,
            dry_run=batch.dry_run,
            on_conflict=batch.on_conflict,
        )


class ContentDigest(Resource):
    """What an edit set says, as one hash; `id` is the set's, `num_edits` are in it."""

    object: Literal["edit_set.digest"] = "edit_set.digest"
    snapshot: str
    num_edits: int
    content_sha256: str


class BatchLineResult(Resource):
    """One line of a file of results: OpenAI's `response` or `error`, and the number of the line in the file."""

    custom_id: str | None
    line: int
    response: dict[str, Any] | None
    error: dict[str, Any] | None

    @classmethod
    def of(cls, batch: str, outcome: LineOutcome) -> Self:
        """Render what became of a line."""
        edit, error = outcome.edit_id, outcome.error
        done = None if error else {"status_code": 201 if edit else 200, "request_id": batch}
        return cls(
            id=f"{batch}-{outcome.number}",
            custom_id=outcome.custom_id,
            line=outcome.number,
            response=done and {**done, "body": {"id": edit, "object": "edit", "version": 1} if edit else {}},
            error=error and {"code": error.code, "message": error.message, "param": error.param},
        )
