"""JSONL lines of a bulk import -> valid lines and per-line errors. Pure: no store, no HTTP."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from incomes_server.api.admin.schemas import BatchLine, CreateEdit, ImportLine
from incomes_server.api.admin.tokens import EditTokenizer
from incomes_server.api.http.errors import first_validation_error
from incomes_server.api.http.json_body import load_json
from incomes_server.edits.model import NewEdit, OnConflict
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
            data = _object(raw)
            custom_id = _custom_id_of(data)
            body = _body_of(data)
            if custom_id in seen:
                raise InvalidValue(f"custom_id {custom_id!r} appears twice in this import", param="custom_id")
            seen.add(custom_id or "")
            yield Line(number, custom_id, body.edit_set, tokenizer.new_edit(body))
        except IncomesError as error:
            yield Line(number, custom_id, error=error)


def with_policy(line: Line, on_conflict: OnConflict | None) -> Line:
    """The line, with what happens when it conflicts, if it does not say it itself."""
    if on_conflict is None or line.edit is None or line.edit.on_conflict is not None:
        return line
    return replace(line, edit=replace(line.edit, on_conflict=on_conflict))


def _object(raw: bytes) -> dict[str, Any]:
    try:
        data = load_json(raw)
    except InvalidValue as error:
        raise InvalidValue(error.message.replace("the request body", "the line"), param=error.param) from None
    if not isinstance(data, dict):
        raise InvalidValue("the line is not a JSON object")
    return data


def _body_of(data: dict[str, Any]) -> CreateEdit:
    try:
        return BatchLine.model_validate(data).body if "body" in data else ImportLine.model_validate(data)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        raise first_validation_error([dict(d) for d in details]) from None


def _custom_id_of(data: dict[str, Any]) -> str | None:
    """The caller's name for a line. It is read from wrong lines too, so that the caller finds them again."""
    custom_id = data.get("custom_id")
    return custom_id.replace("\0", "") if isinstance(custom_id, str) else None
