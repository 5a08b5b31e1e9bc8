"""Request ids: a write that arrives twice (a retry of the caller, or of Ray after a crash) happens once."""

from __future__ import annotations

import json
from collections.abc import Sequence

from incomes_server.store.commands import Requested
from incomes_server.store.rows import Transaction
from incomes_server.store.schema import requests
from sqlalchemy import Connection, delete, insert, select

from incomes_plugin.errors import IdempotencyKeyReuse
from incomes_plugin.gist.edit import EditKey


def find_result(tx: Transaction, command: Requested) -> list[EditKey] | None:
    """The result of the request when it came the first time; None when it is new.

    Raises:
        IdempotencyKeyReuse: the id came with another body.
    """
    row = tx.conn.execute(
        select(requests).where(requests.c.project == command.project, requests.c.request_id == command.request_id)
    ).one_or_none()
    if row is None:
        return None
    if row.body_hash != command.body_hash():
        raise IdempotencyKeyReuse(
            "this Idempotency-Key was used for a request with another body; take a new one", param="Idempotency-Key"
        )
    tx.replayed = True
    return [(str(name), int(version)) for name, version in json.loads(row.result)]


def has_request(conn: Connection, project: str, request_id: str) -> bool:
    """Whether a write with this id was applied."""
    query = select(requests.c.request_id).where(requests.c.project == project, requests.c.request_id == request_id)
    return conn.scalar(query) is not None


def keep_result(tx: Transaction, command: Requested, refs: Sequence[EditKey]) -> None:
    """Remember it, in the transaction of the write itself."""
    tx.conn.execute(
        insert(requests).values(
            project=command.project,
            request_id=command.request_id,
            body_hash=command.body_hash(),
            result=json.dumps(refs),
            created_at=tx.now,
        )
    )


def forget_requests(tx: Transaction, before: int, limit: int) -> bool:
    """Drop up to `limit` results that are older, and those of the same second; whether there may be more."""
    at = requests.c.created_at
    ages = list(tx.conn.scalars(select(at).where(at < before).order_by(at).limit(limit)))
    if ages:
        tx.conn.execute(delete(requests).where(at <= ages[-1]))
    return len(ages) == limit
