"""Erasing an edit: its content leaves every row, then every file of the database; ids and times stay for the record.

erase_edit ─► rows without content, `erased_at` (the tombstone), `scrub` noted in `meta` ─► commit ─► scrub: the files
a backup comes back ─► erased_ids of the database before ─► erase_again
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from contextlib import closing

from incomes_server.edits import EditStatus
from incomes_server.store.edits import find_row, retire_edit
from incomes_server.store.evaluations import forget_answers
from incomes_server.store.labels import labels_of
from incomes_server.store.log import ADD
from incomes_server.store.objects import fetched_sound, is_reference, let_go
from incomes_server.store.rows import AnyRow, Transaction, chunks
from incomes_server.store.schema import edit_versions, edits, log, meta
from incomes_server.store.vault import box_of
from incomes_server.store.verbatims import drop_verbatims
from sqlalchemy import Connection, Engine, delete, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from incomes_plugin.errors import EditConflict, IncomesError
from incomes_plugin.gist.edit import EditKey
from incomes_plugin.gist.header import emptied

logger = logging.getLogger("incomes.store")

e, v = edits.c, edit_versions.c

SCRUB, REWRITE = "scrub", "rewrite"
"""Key in `meta`: the files may hold what the rows do not. Its value `rewrite`: free pages too, of a version before."""


def erase_edit(tx: Transaction, project: str, edit_id: str, if_match: tuple[int, ...] | None = None) -> list[EditKey]:
    """Out of the snapshot, and its content out of all its versions. Erasing it again is no error. Raises EditConflict:
    a label points at a state with it; EtagMismatch."""
    row = find_row(tx.conn, project, edit_id)
    if row.erased_at is None:
        _refuse_at_labels(tx.conn, row.edit_set, edit_id)
    retire_edit(tx, project, edit_id, if_match)
    if row.erased_at is None:
        _drop_content(tx, edit_id)
    tx.note(edit_id, None, "erased")
    return [(edit_id, row.head_version)]


def erased_ids(conn: Connection) -> list[str]:
    """The tombstones: edits that must not come back with a backup."""
    return list(conn.scalars(select(e.id).where(e.erased_at.is_not(None)).order_by(e.seq)))


def erase_again(tx: Transaction, edit_ids: Sequence[str]) -> int:
    """Erase those of these edits that have content."""
    found: list[AnyRow] = []
    for part in chunks(edit_ids):
        query = select(e.id, e.project).where(e.id.in_(part), e.erased_at.is_(None)).order_by(e.seq)
        found += tx.conn.execute(query).all()
    for row in found:
        retire_edit(tx, row.project, row.id)
        _drop_content(tx, row.id)
        tx.note(row.id, None, "erased")
    return len(found)


def scrub(writer: Engine) -> bool:
    """Bring the files of the database to what its rows say; returns whether nothing is left to do.

    SQLite overwrites what rows leave (`secure_delete`); the write-ahead log is copied into the database and cut off. A
    reader that is busy for too long leaves it for later. PostgreSQL frees the dead rows.
    """
    try:
        with writer.begin() as conn:
            due = conn.scalar(select(meta.c.value).where(meta.c.key == SCRUB))
        if due is None:
            return True
        clean = _scrub_files(writer, rewrite=due == REWRITE)
        if clean:
            with writer.begin() as conn:
                conn.execute(delete(meta).where(meta.c.key == SCRUB, meta.c.value == due))
        else:
            logger.warning("the write-ahead log is still read; what was erased leaves it a little later")
    except (SQLAlchemyError, sqlite3.Error) as error:
        logger.warning("what was erased is still in the files, trying again: %s", type(error).__name__)
        return False
    return clean


def _scrub_files(writer: Engine, *, rewrite: bool) -> bool:
    if writer.dialect.name != "sqlite":
        with writer.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
            conn.exec_driver_sql("VACUUM edits, edit_versions, verbatims")
        return True
    with closing(writer.raw_connection()) as raw, closing(raw.cursor()) as cursor:
        if rewrite:
            cursor.execute("VACUUM")
        busy, *_ = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not busy


def _refuse_at_labels(conn: Connection, edit_set: str, edit_id: str) -> None:
    """The engines hold the gists of what labels point at, and production must not change by an erasure in passing."""
    for label in labels_of(conn, edit_set):
        here = select(log.c.op).where(
            log.c.edit_set == edit_set, log.c.edit_id == edit_id, log.c.version <= label.snapshot.version
        )
        if conn.scalar(here.order_by(log.c.version.desc(), log.c.position.desc()).limit(1)) == ADD:
            raise EditConflict(
                f"the state at label {label.name!r} has edit {edit_id}: retire it, move the label to a state "
                "without it, then erase it"
            )


def _drop_content(tx: Transaction, edit_id: str) -> None:
    """Old snapshots keep their identity: in the place of a gist stands an empty one."""
    forget_answers(tx.conn, edit_id)
    drop_verbatims(tx.conn, edit_id)
    for row in tx.conn.execute(select(v.edit_id, v.version, v.blob, v.data_key).where(v.edit_id == edit_id)).all():
        blob = None if row.blob is None else _emptied(tx.conn, row)
        let_go(tx.conn, v.edit_id == edit_id, v.version == row.version)
        tx.conn.execute(
            update(edit_versions)
            .where(v.edit_id == edit_id, v.version == row.version)
            .values(
                status=EditStatus.ERASED,
                status_reason=None,
                updated_at=tx.now,
                num_tokens=0,
                gist_bytes=len(blob or b""),
                metadata="{}",
                text="",
                data_key=None,
                details=None,
                token_ids=b"",
                blob=blob,
                source_url=None,
                document_id=None,
                author=None,
                justification=None,
            )
        )
    tx.conn.execute(update(edits).where(e.id == edit_id).values(erased_at=tx.now, external_id=None))
    if tx.conn.scalar(select(meta.c.value).where(meta.c.key == SCRUB)) is None:
        tx.conn.execute(insert(meta).values(key=SCRUB, value="files"))
    tx.changed.add(edit_id)
    tx.erased = True


def _emptied(conn: Connection, row: AnyRow) -> bytes | None:
    """None: what is there does not open, or is lost."""
    blob = fetched_sound(conn, [row.blob]).get(row.blob) if is_reference(row.blob) else row.blob
    if blob is None:
        return None
    try:
        return emptied(box_of(conn, row.data_key).open("blob", (row.edit_id, row.version), blob))
    except IncomesError:
        return None
