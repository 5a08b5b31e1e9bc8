"""Times that callers give: RFC 3339 with an offset at the API, unix seconds inside. What the server notes itself
(`created_at`) stays OpenAI's unix seconds."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_EXAMPLE = "2026-11-29T17:20:00Z"


def parse_rfc3339(value: Any) -> int:
    """Unix seconds of a time that a caller gave. Raises ValueError: no such time, no offset, or a part of a second."""
    found = _RFC_3339.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"a time is RFC 3339 with an offset, such as {_EXAMPLE}")
    if (found[1] or "").strip(".0"):
        raise ValueError("a time has whole seconds")
    try:
        return int(datetime.fromisoformat(value.upper().replace(found[1] or "", "", 1)).timestamp())
    except (ValueError, OverflowError):
        raise ValueError(f"there is no such time; a time looks like {_EXAMPLE}") from None


def format_rfc3339(seconds: int) -> str:
    """In UTC, e.g. `2026-11-29T17:20:00Z`."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


_SCHEMA = WithJsonSchema({"type": "string", "format": "date-time"})
GivenTime = Annotated[int, BeforeValidator(parse_rfc3339), _SCHEMA]
"""A field of a request body or a query: RFC 3339 in the JSON, unix seconds in Python."""

ShownTime = Annotated[int, PlainSerializer(format_rfc3339, return_type=str), _SCHEMA]
"""A field of an answer that shows a `GivenTime`: unix seconds in Python, RFC 3339 in UTC in the JSON."""
