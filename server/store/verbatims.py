"""Verbatim edit versions in the database: what they are found by, and the vectors that say them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from incomes_server.edits import RecallKeys, VerbatimState, VerbatimText
from incomes_server.store.rows import OF_VERSION, Transaction, keys_from
from incomes_server.store.schema import edit_versions, edits, verbatims
from incomes_server.store.vault import Box, box_of
from sqlalchemy import Connection, delete, insert, select

from incomes_plugin.errors import EditNotFound
from incomes_plugin.gist.edit import EditKey

e, v, b = edits.c, edit_versions.c, verbatims.c

WAITS = "waits for a worker that makes vectors"


def add_verbatims(tx: Transaction, box: Box, new: Sequence[tuple[EditKey, RecallKeys | None]]) -> None:
    """Rows for those of these new versions that are verbatim."""
    rows = [_planned(tx, box, edit, keys) for edit, keys in new if keys is not None]
    if rows:
        tx.conn.execute(insert(verbatims), rows)


def _planned(tx: Transaction, box: Box, edit: EditKey, keys: RecallKeys) -> dict[str, Any]:
    said = box.seal_text(edit, json.dumps(asdict(keys)), "said")
    numbers = dict.fromkeys(("attempts", "vectors", "num_bytes", "tokens", "steps"), 0)
    row = {"edit_id": edit[0], "version": edit[1], "state": VerbatimState.PLANNING, "reason": WAITS}
    return row | {"updated_at": tx.now, "said": said, "data_key": box.key_id} | numbers


def get_verbatim(conn: Connection, project: str, edit_id: str, version: int) -> VerbatimText:
    """What a recall needs. Raises EditNotFound: the project has no such verbatim edit version, or it was erased."""
    query = (
        select(verbatims, v.text, v.data_key.label("text_key"))
        .join_from(verbatims, edit_versions, OF_VERSION)
        .join(edits, e.id == v.edit_id)
        .where(e.project == project, e.erased_at.is_(None), b.edit_id == edit_id, b.version == version)
    )
    row = conn.execute(query).one_or_none()
    if row is None:
        raise EditNotFound(f"no verbatim edit {edit_id!r} version {version}")
    edit, state = (row.edit_id, row.version), VerbatimState(row.state)
    keys = keys_from(conn, edit, row.said, row.data_key)
    text = box_of(conn, row.text_key).open_text(edit, row.text)
    record = None
    if state is VerbatimState.VERIFIED and row.record is not None:
        record = box_of(conn, row.data_key).open("record", edit, row.record) or None
    return VerbatimText(*edit, state, row.reason, keys.title, keys.questions, text, record)


def keys_of(conn: Connection, edit: EditKey) -> RecallKeys | None:
    """What a version is found by; None: it is no verbatim one."""
    row = conn.execute(select(b.said, b.data_key).where(b.edit_id == edit[0], b.version == edit[1])).one_or_none()
    return None if row is None else keys_from(conn, edit, row.said, row.data_key)


def drop_verbatims(conn: Connection, edit_id: str) -> None:
    """Of an erased edit nothing is left."""
    conn.execute(delete(verbatims).where(b.edit_id == edit_id))
