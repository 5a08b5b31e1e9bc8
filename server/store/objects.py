"""Gists in object storage instead of rows of the database, by any URL that fsspec knows (`s3://bucket/folder`).

made ─► note (a row of `loose_objects`, durable at once) ─► object ─► its reference in a row, the note gone: one commit
read ─► reference ─► object, its SHA-256 compared      let go ─► note, in the transaction ─► object deleted, note gone

What a note stands for is deleted: what was let go at once, what was written for a transaction that never committed
after a while. A reference has the digest of the content and a random part, so that no two rows share an object.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from incomes_server.store.rows import chunks
from incomes_server.store.schema import edit_versions, loose_objects
from sqlalchemy import ColumnElement, Connection, Engine, create_engine, delete, func, insert, select

from incomes_plugin.errors import GistStorageFailed, InvalidValue

logger = logging.getLogger("incomes.store")

MAGIC = b"incomes-object\0\1"
"""Begins a reference in the column `blob`. A gist begins with the length of its header, a sealed one at random."""
REFERENCE_BYTES = len(MAGIC) + 32 + 8
ANSWER_WITHIN_S = 5.0
"""A replica that polls meanwhile must hear of the store within its lease; after a silence nobody asks for as long."""
SIDE_BY_SIDE = 16
UNCOMMITTED_S = 600.0
"""After so long a transaction that wrote an object has committed, or never will."""
AT_ONCE = 500
_READS_ALL = 0x696E636F6D6573
"""PostgreSQL's lock, by number: whoever reads every object shares it, whoever deletes some has it alone."""
_OPTION, _NO_STORAGE = (
    "incomes_objects",
    "gists of this store are in an object storage: give the setting `gist_storage`",
)

T = TypeVar("T")
U = TypeVar("U")


class LostObject(GistStorageFailed):
    """The storage answers, and has not what was written: waiting does not help."""


class GistStorage:
    """Objects in one folder of a storage.

    Args:
        url: where, e.g. `s3://bucket/gists` or `file:///mnt/gists`; credentials are the storage's own affair.
        database_url: notes are written beside the transactions of the store.

    Raises:
        InvalidValue: nothing is installed that speaks the URL's protocol.
    """

    def __init__(self, url: str, database_url: str) -> None:
        from fsspec.core import url_to_fs
        from fsspec.implementations.local import LocalFileSystem

        try:
            self._files, self._folder = url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise InvalidValue(f"`gist_storage` {url.partition(':')[0]}: {error}", param="gist_storage") from error
        self._is_local = isinstance(self._files, LocalFileSystem)
        self._silent_until_s = 0.0
        self._threads = ThreadPoolExecutor(SIDE_BY_SIDE, "gist-storage")
        self._notes = create_engine(database_url, isolation_level="AUTOCOMMIT", pool_pre_ping=True)

    def close(self) -> None:
        """Give threads and connections back."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._notes.dispose()

    def probe(self) -> None:
        """Write, read and delete something. Raises GistStorageFailed."""
        references = self.put([b"probe"])
        self.get(references)
        self.remove(references)
        with self._notes.connect() as conn:
            conn.execute(delete(loose_objects).where(loose_objects.c.reference.in_(references)))

    @contextmanager
    def all_kept(self) -> Iterator[None]:
        """Nothing that a row names now is deleted inside the block, whoever lets go of it: for one that reads all."""
        with self._notes.connect() as conn:
            if conn.dialect.name != "postgresql":
                yield
                return
            conn.execute(select(func.pg_advisory_lock_shared(_READS_ALL)))
            try:
                yield
            finally:
                conn.execute(select(func.pg_advisory_unlock_shared(_READS_ALL)))

    @contextmanager
    def may_delete(self) -> Iterator[bool]:
        """Whether nobody is inside `all_kept`, and nobody comes in meanwhile."""
        with self._notes.connect() as conn:
            if conn.dialect.name != "postgresql":
                yield True
                return
            free = bool(conn.scalar(select(func.pg_try_advisory_lock(_READS_ALL))))
            try:
                yield free
            finally:
                if free:
                    conn.execute(select(func.pg_advisory_unlock(_READS_ALL)))

    def put(self, contents: Sequence[bytes]) -> list[bytes]:
        """Note, beside any transaction, that these objects go unless a transaction keeps them; then write them.

        Returns:
            their references.

        Raises:
            GistStorageFailed: it does not answer.
        """
        references = [MAGIC + hashlib.sha256(each).digest() + secrets.token_bytes(8) for each in contents]
        due = int(time.time() + UNCOMMITTED_S)
        with self._notes.connect() as conn:
            conn.execute(insert(loose_objects), [{"reference": each, "due_at": due} for each in references])
        self._each(lambda pair: self._write(*pair), list(zip(references, contents, strict=True)), "written")
        return references

    def get(self, references: Sequence[bytes]) -> list[bytes]:
        """Read objects. Raises GistStorageFailed: it does not answer, or an object is missing or was changed."""
        return self._each(self._read, references, "read")

    def get_sound(self, references: Sequence[bytes]) -> dict[bytes, bytes]:
        """Read objects, without those that are lost. Raises GistStorageFailed."""
        found = self._each(self._read_sound, references, "read")
        return {each: content for each, content in zip(references, found, strict=True) if content is not None}

    def remove(self, references: Sequence[bytes]) -> None:
        """Delete objects; one that is not there is no error. Raises GistStorageFailed."""
        self._each(self._delete, references, "deleted")

    def _each(self, work: Callable[[T], U], items: Sequence[T], done: str) -> list[U]:
        end_s = time.monotonic() + ANSWER_WITHIN_S
        if time.monotonic() < self._silent_until_s:
            raise GistStorageFailed(f"the gist storage has not answered within {ANSWER_WITHIN_S:g} s")
        running = [self._threads.submit(work, item) for item in items]
        try:
            return [each.result(max(0.0, end_s - time.monotonic())) for each in running]
        except GistStorageFailed:
            raise
        except TimeoutError:
            self._silent_until_s = time.monotonic() + ANSWER_WITHIN_S
            raise GistStorageFailed(f"the gist storage does not answer within {ANSWER_WITHIN_S:g} s") from None
        except Exception as error:
            raise GistStorageFailed(f"a gist cannot be {done}: {type(error).__name__}: {error}") from error
        finally:
            for each in running:
                each.cancel()

    def _path(self, reference: bytes) -> str:
        name = reference[len(MAGIC) :].hex()
        return f"{self._folder}/{name[:2]}/{name}"

    def _write(self, reference: bytes, content: bytes) -> None:
        path = self._path(reference)
        if not self._is_local:
            return self._files.pipe_file(path, content)
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_suffix(".part")
        with part.open("wb") as file:
            os.chmod(file.fileno(), 0o600)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.rename(target)
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _read(self, reference: bytes) -> bytes:
        try:
            content: bytes = self._files.cat_file(self._path(reference))
        except FileNotFoundError:
            raise LostObject(f"the gist storage has no object {self._path(reference)}") from None
        if hashlib.sha256(content).digest() != reference[len(MAGIC) : len(MAGIC) + 32]:
            raise LostObject(f"the object {self._path(reference)} was changed: its SHA-256 is another")
        return content

    def _read_sound(self, reference: bytes) -> bytes | None:
        with suppress(LostObject):
            return self._read(reference)
        return None

    def _delete(self, reference: bytes) -> None:
        with suppress(FileNotFoundError):
            self._files.rm_file(self._path(reference))


def is_reference(blob: bytes) -> bool:
    """Whether a column holds a reference instead of a gist."""
    return len(blob) == REFERENCE_BYTES and blob.startswith(MAGIC)


def with_storage(engine: Engine, storage: GistStorage | None) -> Engine:
    """The engine, whose connections know the storage."""
    return engine if storage is None else engine.execution_options(**{_OPTION: storage})


def storage_of(conn: Connection) -> GistStorage | None:
    """The storage of a connection; None = gists are in the database."""
    found: GistStorage | None = conn.get_execution_options().get(_OPTION)
    return found


def stored(conn: Connection, blobs: Sequence[bytes]) -> list[bytes]:
    """What to write into the rows: the gists, or references to objects that are written by then. They go again unless
    the transaction says `keep`. Raises GistStorageFailed."""
    storage = storage_of(conn)
    return list(blobs) if storage is None or not blobs else storage.put(blobs)


def keep(conn: Connection, blobs: Sequence[object]) -> None:
    """These stand in rows from now on."""
    for part in chunks([blob for blob in blobs if isinstance(blob, bytes) and is_reference(blob)]):
        conn.execute(delete(loose_objects).where(loose_objects.c.reference.in_(part)))


def fetched(conn: Connection, blobs: Sequence[bytes]) -> list[bytes]:
    """The gists that columns stand for. Raises GistStorageFailed."""
    wanted = [blob for blob in blobs if is_reference(blob)]
    if not wanted:
        return list(blobs)
    storage = storage_of(conn)
    if storage is None:
        raise GistStorageFailed(_NO_STORAGE)
    found = dict(zip(wanted, storage.get(wanted), strict=True))
    return [found.get(blob, blob) for blob in blobs]


def fetched_sound(conn: Connection, blobs: Sequence[bytes]) -> dict[bytes, bytes]:
    """The same by reference, without objects that are lost. Raises GistStorageFailed."""
    storage, wanted = storage_of(conn), [blob for blob in blobs if is_reference(blob)]
    if wanted and storage is None:
        raise GistStorageFailed(_NO_STORAGE)
    return storage.get_sound(wanted) if storage is not None and wanted else {}


def let_go(conn: Connection, *where: ColumnElement[bool]) -> None:
    """Note the objects of rows that are about to lose or change their gists; they are deleted after the commit."""
    if storage_of(conn) is None:
        return
    v = edit_versions.c
    query = select(v.blob).where(*where, func.length(v.blob) == REFERENCE_BYTES)
    if references := [blob for blob in conn.scalars(query) if is_reference(blob)]:
        conn.execute(insert(loose_objects), [{"reference": each, "due_at": 0} for each in references])


def bury(writer: Engine) -> bool:
    """Delete the objects that are due; whether none is left. What fails is tried again with the next call."""
    with writer.connect() as conn:
        storage = storage_of(conn)
    if storage is None:
        return True
    try:
        with writer.begin() as conn:
            due = select(loose_objects.c.reference).where(loose_objects.c.due_at <= int(time.time())).limit(AT_ONCE)
            references = list(conn.scalars(due))
        if references:
            with storage.may_delete() as free:
                if not free:
                    logger.info("a backup reads the gist storage: what was let go is deleted later")
                    return False
                storage.remove(references)
            with writer.begin() as conn:
                for part in chunks(references):
                    conn.execute(delete(loose_objects).where(loose_objects.c.reference.in_(part)))
    except GistStorageFailed as error:
        logger.warning("objects of gists that were let go are still there, trying again: %s", error.message)
        return False
    return len(references) < AT_ONCE
