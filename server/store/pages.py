"""Cursor pagination in order of creation, as in OpenAI's list routes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from incomes_server.store.rows import AnyRow
from sqlalchemy import ColumnElement, Connection, Select

from incomes_plugin.errors import InvalidValue


def page_of(
    conn: Connection,
    query: Select[Any],
    seq: ColumnElement[int],
    cursor: Select[Any],
    *,
    limit: int,
    after: str | None,
    order: str,
) -> tuple[Sequence[AnyRow], bool]:
    """At most `limit` rows of `query` behind the row that `cursor` finds, and whether more follow.

    Args:
        seq: column that counts upwards with creation.
        cursor: selects `seq` of the row with the id `after`.
        order: `asc` (oldest first) or `desc`.

    Raises:
        InvalidValue: the order or the limit is none, or there is no such row.
    """
    if order not in ("asc", "desc"):
        raise InvalidValue(f"order is 'asc' or 'desc', not {order!r}", param="order")
    if limit < 1:
        raise InvalidValue(f"limit is at least 1, not {limit}", param="limit")
    if after is not None:
        start = conn.scalar(cursor)
        if start is None:
            raise InvalidValue(f"nothing with id {after!r} to list after", param="after")
        query = query.where(seq > start if order == "asc" else seq < start)
    rows = conn.execute(query.order_by(seq if order == "asc" else seq.desc()).limit(limit + 1)).all()
    return rows[:limit], len(rows) > limit
