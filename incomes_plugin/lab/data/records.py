"""One line of an editing data set: checked where it enters. Read by `evaluation/datasets.py` and by
`adapt/conflict_groups.py`, made by `evaluation/invented.py`.

Fields that are not used are ignored, so files of other tools pass as long as they have these.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from incomes_plugin.errors import InvalidValue

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
QueryType = Literal["rewrite", "rephrase", "portability", "multihop", "locality", "near_miss"]
_UNANSWERED = ("locality", "near_miss")
OVERWRITE_FLAG = "sequential_overwrite"
"""Later edits of the record contradict earlier ones on purpose."""
EDITED_ELSEWHERE_FLAG = "path_edited_elsewhere"
"""Another record edits a fact that this record's multi-hop answers rest on."""


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class EditRecord(_Line):
    """One edit: the text that is compressed, and what it says."""

    statement: Text
    subject: str | None = None
    relation: str | None = None
    target_new: str | None = None
    target_old: str | None = None


class QueryRecord(_Line):
    """One question of a record; `edit` is the place of its edit in the record where that is known."""

    type: QueryType
    prompt: Text
    answers: tuple[str, ...]
    subtype: str | None = None
    old_answers: tuple[str, ...] = ()
    edit: int | None = None

    @model_validator(mode="after")
    def _can_be_judged(self) -> Self:
        if not self.answers and self.type not in _UNANSWERED:
            raise ValueError(f"a {self.type} question needs at least one answer")
        return self


class Record(_Line):
    """Edits that belong together and the questions about them."""

    id: Text
    edits: tuple[EditRecord, ...] = Field(min_length=1)
    queries: tuple[QueryRecord, ...]
    flags: tuple[str, ...] = ()


def read_records(path: Path) -> list[Record]:
    """All records of a `.jsonl` or `.jsonl.xz` file.

    Raises:
        InvalidValue: a line that is no record, with file, line, field and what to do.
    """
    try:
        with _open(path) as lines:
            return [record for number, line in enumerate(lines, 1) for record in _parse(path, number, line)]
    except (OSError, lzma.LZMAError, UnicodeDecodeError) as error:
        raise InvalidValue(f"{path} cannot be read as .jsonl or .jsonl.xz: {error}", param="data") from error


def _open(path: Path) -> IO[str]:
    return lzma.open(path, "rt", encoding="utf-8") if path.suffix == ".xz" else path.open(encoding="utf-8")


def _parse(path: Path, number: int, line: str) -> Iterator[Record]:
    if not line.strip():
        return
    try:
        yield Record.model_validate(json.loads(line))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "record"
        raise InvalidValue(
            f"{path}, line {number}, field `{field}`: {first['msg']}; mend the line, docs/evaluation.md has the schema",
            param=field,
        ) from error
    except ValueError as error:
        raise InvalidValue(
            f"{path}, line {number}: not JSON ({error}); write one JSON object a line", param="record"
        ) from error
