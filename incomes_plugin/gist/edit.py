"""One version of an edit on its way to its gist: its key, the job to capture it, what became of the job. No torch here.

The store makes jobs, a worker has the engine capture them, the store keeps what was captured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

EditKey: TypeAlias = tuple[str, int]
"""(edit id, version): the immutable content that a gist is made from."""


@dataclass(frozen=True)
class CaptureJob:
    """One edit version to capture; `token_ids` are the text's alone, `traceparent` is the span of who wrote it."""

    edit_id: str
    version: int
    token_ids: tuple[int, ...]
    traceparent: str | None = None

    @property
    def edit(self) -> EditKey:
        """Which edit version it is."""
        return self.edit_id, self.version


@dataclass(frozen=True)
class Captured:
    """What became of a job: a one-gist blob (`dump_gists`), or the reason there is none."""

    edit_id: str
    version: int
    blob: bytes | None
    error: str | None = None

    @property
    def edit(self) -> EditKey:
        """Which edit version it is."""
        return self.edit_id, self.version
