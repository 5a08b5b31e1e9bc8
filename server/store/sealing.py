"""Data keys of projects: rotate, encrypt again what is under an older one or in the clear, erase all of a project."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from incomes_server.store.edit_sets import delete_edit_set
from incomes_server.store.evaluations import erase_texts, keys_in_use, reseal_texts
from incomes_server.store.labels import delete_labels
from incomes_server.store.rows import Transaction, chunks, in_pairs
from incomes_server.store.schema import data_keys, edit_sets, edit_versions, edits, file_parts, files
from incomes_server.store.vault import Box, Vault, box_of, make_data_key, newest_box, vault_of
from sqlalchemy import Connection, bindparam, func, or_, select, update

from incomes_plugin.errors import NotEncrypted
from incomes_plugin.gist.edit import EditKey

k, v, e = data_keys.c, edit_versions.c, edits.c


@dataclass(frozen=True)
class DataKeyState:
    """A project's data key in use.

    Attributes:
        id: None = it has none: nothing was written yet, or all was erased.
        behind: edit versions that are not under it yet.
    """

    project: str
    id: str | None
    created_at: int | None
    behind: int


def boxes_of(conn: Connection, edits: Sequence[EditKey]) -> dict[EditKey, Box]:
    """The boxes that these versions are written with. Locked: they must not get others meanwhile."""
    found: dict[EditKey, Box] = {}
    for part in chunks(edits):
        query = select(v.edit_id, v.version, v.data_key).where(in_pairs(v.edit_id, v.version, part))
        for row in conn.execute(query.with_for_update()).all():
            found[row.edit_id, row.version] = box_of(conn, row.data_key)
    return found


def data_key_state(conn: Connection, project: str) -> DataKeyState:
    """Raises NotEncrypted."""
    _vault(conn)
    query = select(k.id, k.created_at).where(k.project == project, k.wrapped.is_not(None)).order_by(k.seq.desc())
    row = conn.execute(query.limit(1)).one_or_none()
    of_project = select(func.count()).select_from(edit_versions).join(edits, e.id == v.edit_id)
    of_project = of_project.where(e.project == project)
    if row is None:
        return DataKeyState(project, None, None, conn.scalar(of_project.where(v.data_key.is_(None))) or 0)
    behind = conn.scalar(of_project.where(v.data_key.is_distinct_from(row.id))) or 0
    return DataKeyState(project, row.id, row.created_at, behind)


def rotate_data_key(tx: Transaction, project: str) -> list[EditKey]:
    """From now on the project writes under a new key; what is there follows in small transactions (`reseal`)."""
    before = data_key_state(tx.conn, project).id
    tx.note(f"data key of {project}", before, make_data_key(tx.conn, _vault(tx.conn), project, tx.now))
    return [(project, 0)]


def erase_data_keys(tx: Transaction, project: str) -> list[EditKey]:
    """Delete every edit set of the project, so that no replica uses its edits, and then its keys: nobody can read
    texts and gists of it again, in copies of rows neither."""
    vault = _vault(tx.conn)
    live = select(edit_sets.c.id).where(edit_sets.c.project == project, edit_sets.c.deleted_at.is_(None))
    for edit_set in tx.conn.scalars(live).all():
        delete_edit_set(tx, project, edit_set)
        delete_labels(tx, edit_set)
    versions = v.edit_id.in_(select(e.id).where(e.project == project))
    tx.conn.execute(update(edit_versions).where(versions).values(text="", token_ids=b"", blob=None))
    parts = file_parts.c.file_id.in_(select(files.c.id).where(files.c.project == project))
    tx.conn.execute(update(file_parts).where(parts).values(content=b""))  # some may be in the clear
    erase_texts(tx.conn, project)
    tx.conn.execute(update(data_keys).where(k.project == project).values(wrapped=None))
    vault.forget()
    tx.note(f"data key of {project}", "there", "erased")
    return [(project, 0)]


def reseal(tx: Transaction, limit: int) -> int:
    """Bring up to `limit` versions under their project's newest key; returns how many. Older keys that nothing is under
    any more are destroyed."""
    if vault_of(tx.conn) is None:
        return 0
    newest = select(func.max(k.seq)).where(k.wrapped.is_not(None)).group_by(k.project)
    older = list(tx.conn.scalars(select(k.id).where(k.wrapped.is_not(None), k.seq.not_in(newest))))
    query = (
        select(e.project, v.edit_id, v.version, v.text, v.token_ids, v.blob, v.data_key)
        .join_from(edit_versions, edits, e.id == v.edit_id)
        .where(or_(v.data_key.is_(None), v.data_key.in_(older)))
        .limit(limit)
        .with_for_update(of=edit_versions)
    )
    boxes: dict[str, Box] = {}
    changes = []
    for row in tx.conn.execute(query).all():
        new = boxes.setdefault(row.project, newest_box(tx.conn, row.project, tx.now))
        old, edit = box_of(tx.conn, row.data_key), (row.edit_id, row.version)
        blob = None if row.blob is None else new.seal("blob", edit, old.open("blob", edit, row.blob))
        changes.append(
            {"b_edit": row.edit_id, "b_version": row.version, "b_key": new.key_id, "b_blob": blob}
            | {"b_text": new.seal_text(edit, old.open_text(edit, row.text))}
            | {"b_ids": new.seal("token_ids", edit, old.open("token_ids", edit, row.token_ids))}
        )
    if changes:
        this = (v.edit_id == bindparam("b_edit")) & (v.version == bindparam("b_version"))
        values = {"text": "b_text", "token_ids": "b_ids", "blob": "b_blob", "data_key": "b_key"}
        tx.conn.execute(
            update(edit_versions).where(this).values({name: bindparam(b) for name, b in values.items()}), changes
        )
    moved = len(changes) + reseal_texts(tx, older, limit)
    if not moved and older:
        _destroy(tx.conn, older)
    return moved


def _destroy(conn: Connection, older: Sequence[str]) -> None:
    """Destroy keys that no version and no file is under. The lock waits for those who are just writing under one."""
    locked = conn.scalars(select(k.id).where(k.id.in_(older)).with_for_update()).all()
    used = set(conn.scalars(select(v.data_key).where(v.data_key.in_(locked)).distinct()))
    used |= set(conn.scalars(select(file_parts.c.data_key).where(file_parts.c.data_key.in_(locked)).distinct()))
    used |= keys_in_use(conn, locked)
    conn.execute(update(data_keys).where(k.id.in_(set(locked) - used)).values(wrapped=None))


def _vault(conn: Connection) -> Vault:
    vault = vault_of(conn)
    if vault is None:
        raise NotEncrypted("the edit store is not encrypted; start the server with the setting `encryption_key`")
    return vault
