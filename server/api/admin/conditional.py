"""`ETag` and `If-Match`: a write of an edit or an edit set that happens only if it still is what the caller has read.

The tag is the version in quotes: an edit's moves with its content, an edit set's with every change of what is active.
"""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Depends, Header, Response

from incomes_plugin.errors import InvalidValue

_TAG = re.compile(r'(W/)?"([^"]*)"')
_TAGS = re.compile(rf"{_TAG.pattern}(\s*,\s*{_TAG.pattern})*")


def show_version(response: Response, version: int) -> None:
    """Put the tag of the version on the answer."""
    response.headers["etag"] = f'"{version}"'


def versions_of(
    if_match: Annotated[str | None, Header(max_length=1024, description='`"3"`: only at version 3, else 412')] = None,
) -> tuple[int, ...] | None:
    """Versions at which the write may happen; None = at any. A weak or foreign tag is that of no version.

    Raises:
        InvalidValue: the header has another form.
    """
    if if_match is None or if_match.strip() == "*":
        return None
    if not _TAGS.fullmatch(if_match.strip()):
        raise InvalidValue('`If-Match` is `*` or tags in quotes, as `ETag` has them: "3"', param="If-Match")
    strong = [tag for weak, tag in _TAG.findall(if_match) if not weak]
    return tuple(int(tag) for tag in strong if tag.isascii() and tag.isdigit() and len(tag) < 19)


IfMatch = Annotated[tuple[int, ...] | None, Depends(versions_of)]


def looked_at(versions: IfMatch) -> tuple[int, ...]:
    """Versions at which the write may happen, which the caller has to name.

    Raises:
        InvalidValue: there is no such header, or it is of another form.
    """
    if versions is None:
        raise InvalidValue('say which version you have looked at: `If-Match: "3"`, as `ETag` had it', param="If-Match")
    return versions


LookedAt = Annotated[tuple[int, ...], Depends(looked_at)]
