"""Parses JSON of a caller, or raises one typed error. It refuses values that later code cannot handle.

Lone surrogates cannot be encoded, integers beyond 64 bits fit no database and no engine, NaN is not JSON, and code that
walks deeply nested values recursively would run out of stack.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from incomes_plugin.errors import InvalidValue

MAX_DEPTH = 64
MIN_INTEGER, MAX_INTEGER = -(2**63), 2**64 - 1
_TOO_DEEP = f"the JSON is nested more than {MAX_DEPTH} deep; flatten it"


def load_json(raw: bytes | bytearray) -> Any:
    """Parse JSON.

    Raises:
        InvalidValue: not JSON, or a value that this server does not take; `param` is the field of the outermost object.
    """
    try:
        data = json.loads(raw.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except RecursionError:
        raise InvalidValue(_TOO_DEEP, param="body") from None
    except ValueError:
        raise InvalidValue("the request body is not JSON in UTF-8", param="body") from None
    _check(data)
    return data


def without_nul(value: Any) -> Any:
    """The value. PostgreSQL keeps no U+0000, and what one database takes, the other takes too.

    Raises:
        ValueError: one is in it, at any depth; pydantic adds the name of the field.
    """
    level = [value]
    while level:
        if any(isinstance(each, str) and "\0" in each for each in level):
            raise ValueError("the character U+0000 is not text")
        level = [child for each in level for child in _inside(each)]
    return value


def _inside(value: Any) -> list[Any]:
    return [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidValue(f"{name} is not a JSON number; give a finite one", param="body")


def _check(data: Any) -> None:
    """Walk without recursion: level by level, each value with the field of the outermost object it belongs to."""
    level: list[tuple[str, Any]] = [("body", data)]
    for depth in range(MAX_DEPTH + 1):
        level = [child for field, value in level for child in _children(field, value, is_outermost=depth == 0)]
        if not level:
            return
    raise InvalidValue(_TOO_DEEP, param=level[0][0])


def _children(field: str, value: Any, *, is_outermost: bool) -> list[tuple[str, Any]]:
    """Check one value and return the values inside it."""
    if isinstance(value, str):
        _check_text(value, field)
    elif isinstance(value, float) and not math.isfinite(value):
        raise InvalidValue(f"`{field}`: a number is too large for a float", param=field)
    elif isinstance(value, int) and not MIN_INTEGER <= value <= MAX_INTEGER:
        raise InvalidValue(f"`{field}`: an integer has more than 64 bits", param=field)
    elif isinstance(value, list):
        return [(field, item) for item in value]
    elif isinstance(value, dict):
        for name in value:
            _check_text(name, field)
        return [(name if is_outermost else field, item) for name, item in value.items()]
    return []


def _check_text(text: str, field: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidValue(f"`{field}`: a lone surrogate (such as \\ud800) is not text", param=field) from None
