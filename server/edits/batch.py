"""Files and the imports made of them: the nouns of the store and the API, frozen.

file of JSONL ─► FilePart … ─► StoredFile ─► Batch (BatchStatus) ─► ImportedLine … ─► files of results
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from incomes_server.edits.model import NewEdit, OnConflict


class BatchStatus(StrEnum):
    """How far an import is, in OpenAI's words."""

    VALIDATING = "validating"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


READING = frozenset({BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS})
"""Lines of the file are still to be read."""
ENDED = frozenset({BatchStatus.COMPLETED, BatchStatus.CANCELLED})


@dataclass(frozen=True)
class FilePart:
    """Whole lines of a file, as many as are imported in one transaction.

    Attributes:
        position: counts from 0.
        first_line: number of its first line in the file, from 1.
        num_lines: that are not blank.
    """

    position: int
    first_line: int
    num_lines: int
    content: bytes


@dataclass(frozen=True)
class StoredFile:
    """A file of a project.

    Attributes:
        purpose: `edits` of lines to import, `batch_output` of results.
        has_content: False once the lines have been imported: their texts are in the edits alone.
        batch, of_errors: of results: the import that they are of, and whether they are those of failed lines.
    """

    id: str
    project: str
    filename: str
    purpose: str
    num_bytes: int
    num_lines: int
    num_parts: int
    has_content: bool
    created_at: int
    batch: str | None = None
    of_errors: bool = False


@dataclass(frozen=True)
class LineError:
    """Why a line failed; the error's envelope content."""

    code: str
    message: str
    param: str | None = None


@dataclass(frozen=True)
class ImportedLine:
    """A line of an import: the edit to add, or why there is none.

    Attributes:
        edit_set: that the line names; None = the import's own.
    """

    number: int
    custom_id: str | None
    edit: NewEdit | None = None
    edit_set: str | None = None
    error: LineError | None = None


@dataclass(frozen=True)
class LineOutcome:
    """What became of a line: the id of its edit, or an error; neither where nothing was to be added (`dry_run`)."""

    number: int
    custom_id: str | None
    edit_id: str | None
    error: LineError | None


@dataclass(frozen=True)
class Batch:
    """An import of a file; `position`, `settled` and the counts move with each transaction, and survive any end.

    Attributes:
        edit_set: id of the edit set of lines that name none.
        position: parts of the file that are read.
        settled: number of the last line whose edit the compressor is done with.
        created_by: id of the key that began it, which wrote its edits; None: a former version began it.
        on_conflict: of lines that do not say it; None: as their edit set has it.
        total, completed, failed: lines; at the end the first is the sum of the others.
    """

    id: str
    project: str
    edit_set: str
    input_file: str
    dry_run: bool
    status: BatchStatus
    position: int
    num_parts: int
    settled: int
    total: int
    completed: int
    failed: int
    created_at: int
    in_progress_at: int | None = None
    finalizing_at: int | None = None
    cancelling_at: int | None = None
    ended_at: int | None = None
    output_file: str | None = None
    error_file: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    created_by: str | None = None
    on_conflict: OnConflict | None = None
