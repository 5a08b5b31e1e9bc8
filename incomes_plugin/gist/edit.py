"""One version of an edit on its way to its gist: its key, the job to capture it, what became of the job. No torch here.

The store makes jobs, a worker has the engine capture them, the store keeps what was captured.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

EditKey: TypeAlias = tuple[str, int]
"""(edit id, version): the immutable content that a gist is made from."""

EditKind: TypeAlias = Literal["fact", "verbatim"]
"""What the model reads, or what is found by it and then said to the byte."""


@dataclass(frozen=True)
class CaptureJob:
    """One edit version to capture; `token_ids` are the text's alone, `traceparent` is the span of who wrote it.

    Attributes:
        edit_set: id of the set whose edits the new one is compared with; None = with none.
        kind: of a verbatim edit the tokens are those that it is found by.
    """

    edit_id: str
    version: int
    token_ids: tuple[int, ...]
    traceparent: str | None = None
    edit_set: str | None = field(default=None, compare=False)
    kind: EditKind = field(default="fact", compare=False)

    @property
    def edit(self) -> EditKey:
        """Which edit version it is."""
        return self.edit_id, self.version


ConflictKind: TypeAlias = Literal["contradiction", "duplicate"]
"""Two edits give different answers to one question, or the same one."""


@dataclass(frozen=True)
class FoundConflict:
    """An edit version that a new one conflicts with; `score` is how sure the judge is, 0.5 to 1."""

    edit_id: str
    version: int
    kind: ConflictKind
    score: float

    @property
    def edit(self) -> EditKey:
        """Which edit version it is."""
        return self.edit_id, self.version


@dataclass(frozen=True)
class Compared:
    """With what a new edit was compared, and which of these it conflicts with.

    Attributes:
        position: version of the edit set whose snapshot it was compared with.
        beside: further edit versions that it was compared with.
        found: those in conflict with it.
    """

    position: int
    beside: tuple[EditKey, ...]
    found: tuple[FoundConflict, ...]


@dataclass(frozen=True)
class Captured:
    """What became of a job: a one-gist blob (`dump_gists`), or the reason there is none.

    Attributes:
        compared: None = not compared with other edits.
    """

    edit_id: str
    version: int
    blob: bytes | None
    error: str | None = None
    compared: Compared | None = None

    @property
    def edit(self) -> EditKey:
        """Which edit version it is."""
        return self.edit_id, self.version
