"""Encryption at rest: what edits say under a data key of their project, data keys under the master key.

master key (operator's) ──wraps──► data key (one a project, in `data_keys`) ──AES-256-GCM──► a column of an edit version
                                             associated data: data key, edit, version, column

A version's `data_key` says how its columns are written; null = in the clear. A value belongs to its place: moved to
another row or column it does not open.
"""

from __future__ import annotations

import base64
import hmac
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from incomes_server.auth.master_key import KEY_BYTES, MasterKey
from incomes_server.edits import IdPrefix, new_id
from incomes_server.store.schema import data_keys, meta
from sqlalchemy import Connection, Engine, insert, select, update

from incomes_plugin.errors import NotReady
from incomes_plugin.gist.edit import EditKey

k = data_keys.c
NONCE_BYTES = 12
KEEP_S = 60.0
"""How long an unwrapped data key is kept: another server may have erased it meanwhile."""
_MASTER = "encryption_master"
_OPTION = "incomes_vault"


class ChangedValue(NotReady):
    """A value does not open: somebody else wrote it, or it stood elsewhere. Waiting does not help."""


@dataclass(frozen=True)
class Box:
    """Seals and opens the columns of one edit version. Without a `key_id` values stay as they are; with one and without
    a key, the key was erased: nothing can be read, and nothing is there to be shown.

    Attributes:
        search: a key made from the data key, for digests by which values are found.
    """

    key_id: str | None
    key: AESGCM | None
    search: bytes = b""

    def seal(self, column: str, edit: EditKey, plain: bytes) -> bytes:
        """The value as it is stored. What is empty stays empty: it tells nothing."""
        if self.key_id is None or not plain:
            return plain
        if self.key is None:
            raise NotReady(f"the key of {edit[0]} was erased")
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self.key.encrypt(nonce, plain, self._place(column, edit))

    def open(self, column: str, edit: EditKey, stored: bytes) -> bytes:
        """The value. Raises ChangedValue: it was changed, or is in another place than it was written to."""
        if self.key_id is None or not stored:
            return stored
        if self.key is None:
            return b""
        try:
            return self.key.decrypt(stored[:NONCE_BYTES], stored[NONCE_BYTES:], self._place(column, edit))
        except InvalidTag:
            raise ChangedValue(f"the {column} of {edit[0]} version {edit[1]} was changed in the database") from None

    def seal_text(self, edit: EditKey, text: str, column: str = "text") -> str:
        """`seal` for a column of text."""
        return text if self.key_id is None else base64.b64encode(self.seal(column, edit, text.encode())).decode()

    def open_text(self, edit: EditKey, stored: str, column: str = "text") -> str:
        """`open` for a column of text."""
        return stored if self.key_id is None else self.open(column, edit, base64.b64decode(stored)).decode()

    def digest(self, column: str, text: str | None) -> str | None:
        """What stands in a column in the place of a value by which rows are found. Without the key nobody can try
        values; equal values of a project look alike."""
        if text is None or self.key_id is None:
            return text
        return hmac.digest(self.search, f"{column}\0{text}".encode(), "sha256").hex()

    def _place(self, column: str, edit: EditKey) -> bytes:
        return "\0".join((self.key_id or "", edit[0], str(edit[1]), column)).encode()


PLAIN = Box(None, None)


class Vault:
    """The master keys, and the data keys that were unwrapped lately."""

    def __init__(self, masters: Sequence[MasterKey]) -> None:
        self.current = masters[0]
        self.masters = {master.id: AESGCM(master.key) for master in masters}
        self._boxes: dict[str, tuple[Box, float]] = {}

    def wrap(self, key_id: str, key: bytes) -> bytes:
        """A data key as it is stored."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self.masters[self.current.id].encrypt(nonce, key, key_id.encode())

    def unwrap(self, key_id: str, wrapped: bytes, master: str) -> bytes:
        """Back again. Raises ChangedValue."""
        try:
            return self.masters[master].decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], key_id.encode())
        except InvalidTag:
            raise ChangedValue(f"the data key {key_id} was changed in the database") from None

    def box(self, conn: Connection, key_id: str) -> Box:
        """The box of a data key; of an erased one, a box that is empty."""
        box, until = self._boxes.get(key_id, (PLAIN, 0.0))
        if until < time.monotonic():
            row = conn.execute(select(k.wrapped, k.master).where(k.id == key_id)).one()
            box = Box(key_id, None)
            if row.wrapped is not None:
                key = self.unwrap(key_id, row.wrapped, row.master)
                box = Box(key_id, AESGCM(key), hmac.digest(key, b"incomes search", "sha256"))
            self._boxes[key_id] = box, time.monotonic() + KEEP_S
        return box

    def forget(self) -> None:
        """Drop the unwrapped keys: one was erased."""
        self._boxes.clear()


def with_vault(engine: Engine, vault: Vault | None) -> Engine:
    """The engine, whose connections know the vault."""
    return engine if vault is None else engine.execution_options(**{_OPTION: vault})


def vault_of(conn: Connection) -> Vault | None:
    """The vault of a connection; None = texts are in the clear."""
    found: Vault | None = conn.get_execution_options().get(_OPTION)
    return found


def box_of(conn: Connection, data_key: str | None) -> Box:
    """The box that a version was written with."""
    if data_key is None:
        return PLAIN
    vault = vault_of(conn)
    if vault is None:
        raise NotReady("the edit store is encrypted, and this server has no master key")
    return vault.box(conn, data_key)


def search_terms(conn: Connection, project: str, column: str, value: str) -> list[str]:
    """What a value looks like in the rows of a project: as it is, and under each of its data keys."""
    vault = vault_of(conn)
    keys = [] if vault is None else conn.scalars(select(k.id).where(k.project == project, k.wrapped.is_not(None))).all()
    digests = [vault.box(conn, key_id).digest(column, value) for key_id in keys] if vault is not None else []
    return [value, *(digest for digest in digests if digest is not None)]


def newest_box(conn: Connection, project: str, now: int) -> Box:
    """The box for what a project writes now; its data key is made with its first edit.

    Args:
        conn: in a transaction that may write.
    """
    vault = vault_of(conn)
    if vault is None:
        return PLAIN
    query = select(k.id).where(k.project == project, k.wrapped.is_not(None)).order_by(k.seq.desc()).limit(1)
    query = query.with_for_update(read=True)  # `reseal` destroys a key when nobody writes under it any more
    return vault.box(conn, conn.scalar(query) or make_data_key(conn, vault, project, now))


def make_data_key(conn: Connection, vault: Vault, project: str, now: int) -> str:
    """A new data key, the project's newest."""
    key_id = new_id(IdPrefix.DATA_KEY)
    wrapped = vault.wrap(key_id, os.urandom(KEY_BYTES))
    values = {"id": key_id, "project": project, "wrapped": wrapped, "master": vault.current.id, "created_at": now}
    conn.execute(insert(data_keys).values(values))
    return key_id


def unlock(conn: Connection, vault: Vault | None) -> None:
    """At the opening of the store: check the master key; wrap all data keys anew when it is another than last time.

    Raises:
        NotReady: the store is encrypted, and the key is missing or another.
    """
    master = conn.scalar(select(meta.c.value).where(meta.c.key == _MASTER))
    if vault is None:
        if master is not None:
            raise NotReady(f"the edit store is encrypted: give its master key {master} (setting `encryption_key`)")
        return
    if master is None:
        conn.execute(insert(meta).values(key=_MASTER, value=vault.current.id))
    elif master not in vault.masters:
        given = ", ".join(vault.masters)
        raise NotReady(f"the edit store is encrypted with the master key {master}, `encryption_key` is {given}")
    elif master != vault.current.id:
        for row in conn.execute(select(data_keys).where(k.wrapped.is_not(None))).all():
            wrapped = vault.wrap(row.id, vault.unwrap(row.id, row.wrapped, row.master))
            conn.execute(update(data_keys).where(k.id == row.id).values(wrapped=wrapped, master=vault.current.id))
        conn.execute(update(meta).where(meta.c.key == _MASTER).values(value=vault.current.id))
