"""Imports in the database. A part of the file, what becomes of its lines and how far the import is are one transaction:
whoever goes on after any end goes on behind it, and no line is imported twice or left out."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

from incomes_server.edits import IdPrefix, OnConflict, new_id
from incomes_server.edits.batch import ENDED, READING, Batch, BatchStatus, ImportedLine, LineError, LineOutcome
from incomes_server.store.commands import CancelBatch, CreateBatch, FinishBatch, ImportLines, SettleLines
from incomes_server.store.edit_sets import find_edit_set
from incomes_server.store.edits import add_edits
from incomes_server.store.files import add_file, check_unused, drop_content, get_file
from incomes_server.store.pages import page_of
from incomes_server.store.rows import AnyRow, Transaction, chunks
from incomes_server.store.schema import batch_lines, batches, edit_sets, edit_versions, edits
from sqlalchemy import Connection, bindparam, func, insert, select, update
from sqlalchemy.exc import DataError

from incomes_plugin.errors import BatchNotFound, EditConflict, IncomesError, InvalidValue
from incomes_plugin.gist.edit import EditKey

b, n = batches.c, batch_lines.c
S = BatchStatus


def get_batch(conn: Connection, project: str, batch_id: str) -> Batch:
    """Raises BatchNotFound."""
    row = conn.execute(select(batches).where(b.project == project, b.id == batch_id)).one_or_none()
    if row is None:
        raise BatchNotFound(f"no batch {batch_id!r}")
    return _from_row(row)


def list_batches(
    conn: Connection, project: str, *, limit: int, after: str | None, order: str
) -> tuple[list[Batch], bool]:
    """A page of the project's imports, and whether more follow."""
    query = select(batches).where(b.project == project)
    cursor = select(b.seq).where(b.project == project, b.id == after)
    rows, has_more = page_of(conn, query, b.seq, cursor, limit=limit, after=after, order=order)
    return [_from_row(row) for row in rows], has_more


def unfinished(conn: Connection, skip: int, limit: int) -> list[Batch]:
    """Imports of all projects that have not ended, the oldest first, without the first `skip` of them."""
    query = select(batches).where(b.status.not_in(ENDED)).order_by(b.seq).offset(skip).limit(limit)
    return [_from_row(row) for row in conn.execute(query)]


def lines_after(conn: Connection, batch_id: str, number: int, limit: int) -> list[LineOutcome]:
    """What became of the lines behind `number`, in their order."""
    query = select(batch_lines).where(n.batch == batch_id, n.line > number).order_by(n.line).limit(limit)
    return [
        LineOutcome(row.line, row.custom_id, row.edit_id, LineError(**json.loads(row.error)) if row.error else None)
        for row in conn.execute(query)
    ]


def versions_reached(conn: Connection, batch_id: str) -> dict[str, int]:
    """For each edit set that the import has added to and that is there: the version that has all of its edits."""
    e, v = edits.c, edit_versions.c
    query = (
        select(e.edit_set, func.max(v.set_version))
        .join_from(batch_lines, edits, e.id == n.edit_id)
        .join(edit_versions, (v.edit_id == e.id) & (v.version == 1))
        .join(edit_sets, (edit_sets.c.id == e.edit_set) & edit_sets.c.deleted_at.is_(None))
        .where(n.batch == batch_id)
        .group_by(e.edit_set)
    )
    return {edit_set: version for edit_set, version in conn.execute(query) if version is not None}


def create_batch(command: CreateBatch, tx: Transaction) -> list[EditKey]:
    """Raises StoredFileNotFound, EditSetNotFound, InvalidValue, FileInUse."""
    file = get_file(tx.conn, command.project, command.input_file)
    if file.batch is not None or not file.has_content:
        raise InvalidValue(f"{file.id} has no lines to import; upload a file", param="input_file_id")
    check_unused(tx.conn, file.id)
    batch_id = new_id(IdPrefix.BATCH)
    row = {"id": batch_id, "project": command.project, "input_file": file.id, "dry_run": command.dry_run}
    row |= {"edit_set": find_edit_set(tx.conn, command.project, command.edit_set).id, "status": S.VALIDATING}
    row |= dict.fromkeys(("position", "settled", "completed", "failed"), 0)
    row |= {"num_parts": file.num_parts, "total": file.num_lines, "created_at": tx.now, "created_by": tx.actor}
    row |= {"on_conflict": command.on_conflict}
    tx.conn.execute(insert(batches).values(**row, metadata=json.dumps(command.metadata, sort_keys=True)))
    tx.note(batch_id, None, f"{file.num_lines} lines of {file.id}")
    return [(batch_id, 0)]


def cancel_batch(command: CancelBatch, tx: Transaction) -> list[EditKey]:
    """Read no more lines; what was added stays. An import that has ended stays as it is. Raises BatchNotFound."""
    batch = get_batch(tx.conn, command.project, command.batch_id)
    if batch.status not in ENDED:
        _set(tx, batch.id, status=S.CANCELLING, cancelling_at=batch.cancelling_at or tx.now)
        tx.note(batch.id, batch.status, S.CANCELLING)
    return [(batch.id, 0)]


def import_lines(command: ImportLines, tx: Transaction) -> Batch:
    """Add the edits of one part and move on. A part that has been read already changes nothing: whoever sends it late,
    or again, sees in the answer how far the import is."""
    batch = _lock(tx, command.batch_id)
    if batch.position != command.position or batch.status not in READING:
        tx.replayed = True
        return batch
    lines, tx.actor = _once(tx, batch, command.lines), batch.created_by or tx.actor  # the server works off its request
    notes = dict(tx.notes)
    point = tx.conn.begin_nested()
    outcomes = _add(tx, batch, lines)
    if batch.dry_run:
        point.rollback()
        tx.notes = notes
        outcomes = [replace(outcome, edit_id=None) for outcome in outcomes]
    else:
        point.commit()
    rows = [
        {"batch": batch.id, "line": o.number, "custom_id": o.custom_id, "edit_id": o.edit_id}
        | {"error": json.dumps(asdict(o.error)) if o.error else None}
        for o in outcomes
    ]
    if rows:
        tx.conn.execute(insert(batch_lines), rows)
    position, failed = batch.position + 1, sum(o.error is not None for o in outcomes)
    _set(
        tx, batch.id, position=position, failed=batch.failed + failed,
        status=S.FINALIZING if position == batch.num_parts else S.IN_PROGRESS,
        in_progress_at=batch.in_progress_at or tx.now, finalizing_at=tx.now if position == batch.num_parts else None,
    )  # fmt: skip
    tx.note(batch.id, f"{batch.position} parts read", f"{position} parts read")
    return _lock(tx, batch.id)


def settle_lines(command: SettleLines, tx: Transaction) -> Batch:
    """The compressor is done with the edits of the lines up to `upto`: count them. The same lines may come twice."""
    batch = _lock(tx, command.batch_id)
    if batch.settled != command.settled:
        return batch
    failed = [{"b_batch": batch.id, "b_line": line, "b_error": json.dumps(asdict(e))} for line, e in command.failed]
    if failed:
        where = (n.batch == bindparam("b_batch")) & (n.line == bindparam("b_line"))
        tx.conn.execute(update(batch_lines).where(where).values(error=bindparam("b_error")), failed)
    of_lines = (n.batch == batch.id) & (n.line > batch.settled) & (n.line <= command.upto)
    good = tx.conn.scalar(select(func.count()).select_from(batch_lines).where(of_lines, n.error.is_(None))) or 0
    _set(
        tx, batch.id, settled=command.upto, completed=batch.completed + good, failed=batch.failed + len(failed)
    )  # fmt: skip
    return _lock(tx, batch.id)


def finish_batch(command: FinishBatch, tx: Transaction) -> Batch:
    """All is done: the files of results come into being. The texts of the file that was imported go: from now on they
    are in the edits alone, and erasing an edit erases them."""
    batch = _lock(tx, command.batch_id)
    if batch.status in ENDED:
        return batch
    ids: dict[str, str | None] = {"output_file": None, "error_file": None}
    for name, num_bytes, num_lines in (
        ("output_file", command.output_bytes, batch.completed),
        ("error_file", command.error_bytes, batch.failed),
    ):
        if num_lines:
            ids[name] = file_id = new_id(IdPrefix.FILE)
            add_file(
                tx, batch.project, file_id, f"{batch.id}_{name.removesuffix('_file')}.jsonl", "batch_output",
                num_bytes=num_bytes, num_lines=num_lines, batch=batch.id, of_errors=name == "error_file",
            )  # fmt: skip
    status = S.CANCELLED if batch.status is S.CANCELLING else S.COMPLETED
    _set(tx, batch.id, status=status, ended_at=tx.now, **ids)
    if status is S.COMPLETED and not batch.dry_run:
        drop_content(tx, batch.input_file)
    return _lock(tx, batch.id)


def _once(tx: Transaction, batch: Batch, lines: Sequence[ImportedLine]) -> list[ImportedLine]:
    """Refuse lines whose `custom_id` was there before, in this part or in an earlier one."""
    seen: set[str] = set()
    names = [line.custom_id for line in lines if line.custom_id is not None]
    for part in chunks(names):
        query = select(n.custom_id).where(n.batch == batch.id, n.custom_id.in_(part))
        seen.update(tx.conn.scalars(query))
    kept = []
    for line in lines:
        if line.custom_id in seen and line.error is None:
            error = LineError(
                InvalidValue.code, f"custom_id {line.custom_id!r} appears twice in this file", "custom_id"
            )
            line = replace(line, edit=None, error=error)
        seen.add(line.custom_id or "")
        kept.append(line)
    return kept


def _add(tx: Transaction, batch: Batch, lines: Sequence[ImportedLine]) -> list[LineOutcome]:
    """Add the edits, set by set and in their order; a line that cannot be added fails alone."""
    by_set: dict[str, list[ImportedLine]] = {}
    for line in lines:
        if line.edit is not None:
            by_set.setdefault(line.edit_set or batch.edit_set, []).append(line)
    found: dict[int, str | LineError] = {line.number: line.error for line in lines if line.error is not None}
    for edit_set, members in by_set.items():
        found |= _add_to(tx, batch.project, edit_set, members)
    return [
        LineOutcome(line.number, line.custom_id, None, error)
        if isinstance(error := found[line.number], LineError)
        else LineOutcome(line.number, line.custom_id, error, None)
        for line in lines
    ]


def _add_to(tx: Transaction, project: str, edit_set: str, lines: Sequence[ImportedLine]) -> dict[int, str | LineError]:
    try:
        if find_edit_set(tx.conn, project, edit_set).two_person:  # another one may have written the file
            raise EditConflict("who wrote a file's lines is not known, and this set wants two persons; add them singly")
        with tx.conn.begin_nested():
            keys = add_edits(tx, project, edit_set, [line.edit for line in lines if line.edit is not None])
            return {line.number: edit_id for line, (edit_id, _) in zip(lines, keys, strict=True)}
    except (IncomesError, DataError) as error:
        if len(lines) == 1 and isinstance(error, IncomesError):
            return {lines[0].number: LineError(error.code, error.message, error.param)}
        if len(lines) == 1:
            return {lines[0].number: LineError(InvalidValue.code, "the database cannot keep a value of this line")}
        halves = (lines[: len(lines) // 2], lines[len(lines) // 2 :])
        return _add_to(tx, project, edit_set, halves[0]) | _add_to(tx, project, edit_set, halves[1])


def _lock(tx: Transaction, batch_id: str) -> Batch:
    return _from_row(tx.conn.execute(select(batches).where(b.id == batch_id).with_for_update()).one())


def _set(tx: Transaction, batch_id: str, **values: object) -> None:
    tx.conn.execute(update(batches).where(b.id == batch_id).values(values))


def _from_row(row: AnyRow) -> Batch:
    fields = {name: value for name, value in row._asdict().items() if name != "seq"}
    fields["on_conflict"] = row.on_conflict and OnConflict(row.on_conflict)
    return Batch(**{**fields, "status": BatchStatus(row.status), "metadata": json.loads(row.metadata)})


STEPS: dict[type, Callable[..., Any]] = {
    ImportLines: import_lines,
    SettleLines: settle_lines,
    FinishBatch: finish_batch,
}
REQUESTS: dict[type, Callable[..., list[EditKey]]] = {CreateBatch: create_batch, CancelBatch: cancel_batch}
"""Rules of the commands, for `core.py`."""
