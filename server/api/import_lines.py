"""JSONL lines of a bulk import -> valid lines and per-line errors. Pure: no store, no HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from incomes_server.api.errors import first_validation_error
from incomes_server.api.schemas import BatchLine, CreateEdit, ImportLine
from incomes_server.api.tokens import EditTokenizer
from incomes_server.edits.model import NewEdit
from pydantic import ValidationError

from incomes_plugin.errors import IncomesError, InvalidValue


@dataclass(frozen=True)
class Line:
    """One parsed line: an edit to add, or the error that says why not."""

    number: int
    custom_id: str | None
    edit_set: str | None = None
    edit: NewEdit | None = None
    error: IncomesError | None = None


def parse_lines(raw_lines: Iterable[bytes], tokenizer: EditTokenizer) -> Iterator[Line]:
    """Parse lines one by one; blank lines are skipped, a repeated `custom_id` is an error."""
    seen: set[str] = set()
    for number, raw in enumerate(raw_lines, start=1):
        if not raw.strip():
            continue
        custom_id = None
        try:
            custom_id, body = _read(raw)
            if custom_id in seen:
                raise InvalidValue(f"custom_id {custom_id!r} appears twice in this import", param="custom_id")
            seen.add(custom_id)
            yield Line(number, custom_id, body.edit_set, tokenizer.new_edit(body))
        except IncomesError as error:
            yield Line(number, custom_id or _custom_id_of(raw), error=error)


def _read(raw: bytes) -> tuple[str, CreateEdit]:
    try:
        data = json.loads(raw)
    except ValueError:
        raise InvalidValue("the line is not JSON") from None
    if not isinstance(data, dict):
        raise InvalidValue("the line is not a JSON object")
    try:
        if "body" in data:
            batch = BatchLine.model_validate(data)
            return batch.custom_id, batch.body
        line = ImportLine.model_validate(data)
        return line.custom_id, line
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        raise first_validation_error([dict(d) for d in details]) from None


def _custom_id_of(raw: bytes) -> str | None:
    """The caller's name for a line that is otherwise wrong, so that it can be found again."""
    try:
        custom_id = json.loads(raw)["custom_id"]
    except (ValueError, TypeError, KeyError):
        return None
    return custom_id if isinstance(custom_id, str) else None
