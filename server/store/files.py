"""Files in the database: in parts of whole lines, so that nobody ever needs a whole one in memory."""

from __future__ import annotations

from collections.abc import Callable

from incomes_server.edits.batch import ENDED, FilePart, StoredFile
from incomes_server.store.commands import AddFileParts, DeleteFile, DropFileParts, KeepFile
from incomes_server.store.pages import page_of
from incomes_server.store.rows import AnyRow, Transaction
from incomes_server.store.schema import batches, file_parts, files
from incomes_server.store.vault import box_of, newest_box
from sqlalchemy import Connection, delete, func, insert, select, update

from incomes_plugin.errors import FileInUse, NotReady, QuotaExceeded, StoredFileNotFound
from incomes_plugin.gist.edit import EditKey

f, p = files.c, file_parts.c
_COLUMN = "content"


def get_file(conn: Connection, project: str, file_id: str) -> StoredFile:
    """Raises StoredFileNotFound."""
    return _from_row(_find(conn, project, file_id))


def list_files(
    conn: Connection, project: str, *, purpose: str | None, limit: int, after: str | None, order: str
) -> tuple[list[StoredFile], bool]:
    """A page of the project's files, and whether more follow."""
    query = select(files).where(f.project == project)
    if purpose is not None:
        query = query.where(f.purpose == purpose)
    cursor = select(f.seq).where(f.project == project, f.id == after)
    rows, has_more = page_of(conn, query, f.seq, cursor, limit=limit, after=after, order=order)
    return [_from_row(row) for row in rows], has_more


def get_part(conn: Connection, file_id: str, position: int) -> FilePart:
    """One part of a file. Raises StoredFileNotFound: its content was deleted, or the key that it was under."""
    row = conn.execute(select(file_parts).where(p.file_id == file_id, p.position == position)).one_or_none()
    content = row and box_of(conn, row.data_key).open(_COLUMN, (file_id, position), row.content)
    if row is None or not content:
        raise StoredFileNotFound(f"{file_id} has no content any more")
    return FilePart(row.position, row.first_line, row.num_lines, content)


def add_parts(command: AddFileParts, tx: Transaction) -> None:
    """Keep parts of a file that is still arriving. The same parts may come twice."""
    there = set(tx.conn.scalars(select(p.position).where(p.file_id == command.file_id)))
    box = newest_box(tx.conn, command.owner, tx.now)
    rows = [
        {"file_id": command.file_id, "position": part.position, "first_line": part.first_line}
        | {"num_lines": part.num_lines, "num_bytes": len(part.content), "data_key": box.key_id}
        | {"content": box.seal(_COLUMN, (command.file_id, part.position), part.content)}
        for part in command.parts
        if part.position not in there
    ]
    if rows:
        tx.conn.execute(insert(file_parts), rows)


def drop_parts(command: DropFileParts, tx: Transaction) -> None:
    """Forget parts, unless the file is complete."""
    kept = select(f.id).where(f.id == command.file_id)
    tx.conn.execute(delete(file_parts).where(p.file_id == command.file_id, ~kept.exists()))


def keep_file(command: KeepFile, tx: Transaction) -> list[EditKey]:
    """The file is complete.

    Raises:
        NotReady: parts of it are gone; the store was restarted meanwhile.
        QuotaExceeded: the project's files are too many bytes.
    """
    arrived = tx.conn.execute(
        select(func.count(), func.sum(p.num_bytes), func.sum(p.num_lines)).where(p.file_id == command.file_id)
    ).one()
    if (arrived[0], int(arrived[1] or 0)) != (command.num_parts, command.num_bytes):
        raise NotReady("the edit store was restarted while the file arrived; send it again")
    used = tx.conn.scalar(select(func.sum(f.num_bytes)).where(f.project == command.project, f.has_content.is_(True)))
    if int(used or 0) + command.num_bytes > command.limit_bytes:
        raise QuotaExceeded(
            f"the project's files have {used or 0} bytes, {command.num_bytes} more are beyond "
            f"`max_file_bytes_per_project` ({command.limit_bytes}); import them, or delete some"
        )
    add_file(
        tx, command.project, command.file_id, command.filename, command.purpose,
        num_bytes=command.num_bytes, num_lines=int(arrived[2] or 0), num_parts=command.num_parts,
    )  # fmt: skip
    return [(command.file_id, 0)]


def kept(command: KeepFile | DeleteFile, tx: Transaction, file_id: str) -> StoredFile | str:
    """The file that was kept, or the id of the one that was deleted. A file that is there already, because its request
    came before, has arrived once more under another id; that one goes."""
    if isinstance(command, DeleteFile):
        return file_id
    if file_id != command.file_id:
        drop_content(tx, command.file_id)
    return get_file(tx.conn, command.project, file_id)


def add_file(
    tx: Transaction,
    project: str,
    file_id: str,
    filename: str,
    purpose: str,
    *,
    num_bytes: int,
    num_lines: int,
    num_parts: int = 0,
    batch: str | None = None,
    of_errors: bool = False,
) -> None:
    """The row of a file."""
    row = {"id": file_id, "project": project, "filename": filename, "purpose": purpose, "num_bytes": num_bytes}
    row |= {"num_lines": num_lines, "num_parts": num_parts, "has_content": True, "created_at": tx.now}
    tx.conn.execute(insert(files).values(**row, batch=batch, of_errors=of_errors))
    tx.note(file_id, None, purpose)


def delete_file(command: DeleteFile, tx: Transaction) -> list[EditKey]:
    """Delete a file and what is in it. Raises StoredFileNotFound, FileInUse."""
    row = _find(tx.conn, command.project, command.file_id)
    check_unused(tx.conn, row.id)
    drop_content(tx, row.id)
    tx.conn.execute(delete(files).where(f.id == row.id))
    tx.note(row.id, row.purpose, "deleted")
    return [(row.id, 0)]


def check_unused(conn: Connection, file_id: str) -> None:
    """Raises FileInUse."""
    b = batches.c
    using = select(b.id).where(b.input_file == file_id, b.status.not_in(ENDED))
    if (batch := conn.scalar(using)) is not None:
        raise FileInUse(f"{file_id} is being imported by {batch}; wait for its end, or cancel it")


def drop_content(tx: Transaction, file_id: str) -> None:
    """Forget what is in a file."""
    tx.conn.execute(delete(file_parts).where(p.file_id == file_id))
    tx.conn.execute(update(files).where(f.id == file_id).values(has_content=False))


def prune_parts(conn: Connection) -> None:
    """Forget parts of files that never became complete."""
    conn.execute(delete(file_parts).where(p.file_id.not_in(select(f.id))))


def _find(conn: Connection, project: str, file_id: str) -> AnyRow:
    row = conn.execute(select(files).where(f.project == project, f.id == file_id)).one_or_none()
    if row is None:
        raise StoredFileNotFound(f"no file {file_id!r}")
    return row


def _from_row(row: AnyRow) -> StoredFile:
    fields = StoredFile.__dataclass_fields__
    return StoredFile(**{name: value for name, value in row._asdict().items() if name in fields})


STEPS: dict[type, Callable[..., None]] = {AddFileParts: add_parts, DropFileParts: drop_parts}
REQUESTS: dict[type, Callable[..., list[EditKey]]] = {KeepFile: keep_file, DeleteFile: delete_file}
"""Rules of the commands, for `core.py`."""
