"""Data keys of projects: rotate, encrypt again what is under an older one or in the clear, erase all of a project.

A row that somebody has changed does not open: it is reported, keeps its key, and holds up no other row.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from incomes_server.store.edit_sets import delete_edit_set
from incomes_server.store.evaluations import erase_texts
from incomes_server.store.labels import delete_labels
from incomes_server.store.objects import LostObject, fetched_sound, is_reference, keep, let_go, stored
from incomes_server.store.rows import AnyRow, Transaction, chunks, details_from, in_pairs, sealed_details
from incomes_server.store.schema import (
    data_keys,
    edit_sets,
    edit_versions,
    edits,
    eval_runs,
    eval_suites,
    file_parts,
    files,
    verbatims,
)
from incomes_server.store.vault import Box, ChangedValue, Vault, box_of, make_data_key, newest_box, vault_of
from sqlalchemy import ColumnElement, Connection, Table, delete, func, literal, or_, select, tuple_, update

from incomes_plugin.errors import NotEncrypted
from incomes_plugin.gist.edit import EditKey

logger = logging.getLogger("incomes.sealing")
k, v, e = data_keys.c, edit_versions.c, edits.c


RowPlace: TypeAlias = tuple[str, str, int]
"""A row with values that are encrypted: table, and the two parts of its place (`Box`)."""


@dataclass(frozen=True)
class Resealed:
    """What one step of `reseal` did.

    Attributes:
        damaged: rows that do not open, found in this step.
    """

    moved: int
    damaged: tuple[RowPlace, ...] = ()


@dataclass(frozen=True)
class _Kind:
    """Rows of one table.

    Attributes:
        place, number: what their values belong to.
        owner: the project. joined: what it is a column of.
        texts, blobs: columns that are encrypted.
        sealed_as: the column that its texts belong to.
    """

    table: Table
    place: ColumnElement[Any]
    number: ColumnElement[Any]
    owner: ColumnElement[Any]
    joined: tuple[Table, ColumnElement[bool]] | None = None
    texts: tuple[str, ...] = ()
    blobs: tuple[str, ...] = ()
    sealed_as: str = "text"


_ZERO = literal(0)
_KINDS = (
    _Kind(
        edit_versions, v.edit_id, v.version, e.project, (edits, e.id == v.edit_id), ("text",), ("token_ids", "blob")
    ),
    _Kind(
        verbatims, verbatims.c.edit_id, verbatims.c.version, e.project, (edits, e.id == verbatims.c.edit_id),
        ("said",), ("record",), "said",
    ),
    _Kind(eval_suites, eval_suites.c.edit_set, _ZERO, eval_suites.c.project, texts=("questions",)),
    _Kind(eval_runs, eval_runs.c.id, _ZERO, eval_runs.c.project, texts=("results",)),
    _Kind(
        file_parts, file_parts.c.file_id, file_parts.c.position, files.c.project,
        (files, files.c.id == file_parts.c.file_id), blobs=("content",),
    ),
)  # fmt: skip
"""Parts of a file that is still arriving have no owner yet: they wait until it is there."""


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
    older = select(k.id).where(k.project == project, k.wrapped.is_not(None), k.id != row.id)
    in_part = (v.data_key == row.id) & v.details.is_(None)
    behind = conn.scalar(of_project.where(or_(v.data_key.is_(None), v.data_key.in_(older), in_part))) or 0
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
    known = dict.fromkeys(("details", "source_url", "document_id", "author", "justification"))
    let_go(tx.conn, versions)
    tx.conn.execute(delete(verbatims).where(verbatims.c.edit_id.in_(select(e.id).where(e.project == project))))
    tx.conn.execute(
        update(edit_versions).where(versions).values(text="", token_ids=b"", blob=None, metadata="{}", **known)
    )
    parts = file_parts.c.file_id.in_(select(files.c.id).where(files.c.project == project))
    tx.conn.execute(update(file_parts).where(parts).values(content=b""))  # some may be in the clear
    erase_texts(tx.conn, project)
    tx.conn.execute(update(data_keys).where(k.project == project).values(wrapped=None))
    vault.forget()
    tx.note(f"data key of {project}", "there", "erased")
    return [(project, 0)]


def reseal(tx: Transaction, limit: int, damaged: Sequence[RowPlace] = ()) -> Resealed:
    """Bring up to `limit` rows under their project's newest key. Older keys that nothing is under any more are
    destroyed.

    Args:
        damaged: rows that are known not to open; they hold up no others.
    """
    if vault_of(tx.conn) is None:
        return Resealed(0)
    newest = select(func.max(k.seq)).where(k.wrapped.is_not(None)).group_by(k.project)
    older = list(tx.conn.scalars(select(k.id).where(k.wrapped.is_not(None), k.seq.not_in(newest))))
    moved, found = 0, list[RowPlace]()
    for kind in _KINDS:
        rows = _rows_of(tx.conn, kind, older, limit, [place for place in damaged if place[0] == kind.table.name])
        blobs = [blob for row in rows if (blob := getattr(row, "blob", None)) is not None]
        objects, sealed = fetched_sound(tx.conn, blobs), list[tuple[AnyRow, dict[str, Any]]]()
        for row in rows:
            try:
                sealed.append((row, _sealed_anew(tx, kind, row, objects)))
            except (ChangedValue, LostObject) as error:
                logger.error("%s; it stays under its key until it is erased or a backup is restored", error.message)
                found.append((kind.table.name, row.place, row.number))
        _write(tx, kind, sealed)
        moved += len(sealed)
    if not moved and not found and older:
        _destroy(tx.conn, older)
    return Resealed(moved, tuple(found))


def _rows_of(
    conn: Connection, kind: _Kind, older: Sequence[str], limit: int, damaged: Sequence[RowPlace]
) -> Sequence[AnyRow]:
    """Rows in the clear or under an older key; of edit versions also those that a former version sealed in part."""
    c = kind.table.c
    this = select(kind.table, kind.owner.label("owner"), kind.place.label("place"), kind.number.label("number"))
    this = this.where(kind.owner.is_not(None)).limit(limit).with_for_update(of=kind.table)
    if kind.joined is not None:
        this = this.join(*kind.joined)
    if damaged:
        this = this.where(~tuple_(kind.place, kind.number).in_([(place, number) for _, place, number in damaged]))
    rows = conn.execute(this.where(or_(c.data_key.is_(None), c.data_key.in_(older)))).all()
    if kind.table is edit_versions and len(rows) < limit:
        in_part = v.data_key.is_not(None) & v.details.is_(None)
        live = select(k.id).where(k.wrapped.is_not(None), k.id.not_in(older))
        rows = [*rows, *conn.execute(this.where(in_part, v.data_key.in_(live))).all()]
    return rows


def _sealed_anew(tx: Transaction, kind: _Kind, row: AnyRow, objects: Mapping[bytes, bytes]) -> dict[str, Any]:
    """`objects`: what references of rows stand for. Raises ChangedValue, LostObject."""
    new, old, place = newest_box(tx.conn, row.owner, tx.now), box_of(tx.conn, row.data_key), (row.place, row.number)
    values: dict[str, Any] = {"data_key": new.key_id}
    for name in kind.texts:
        plain = old.open_text(place, getattr(row, name), kind.sealed_as)
        values[name] = new.seal_text(place, plain, kind.sealed_as)
    for name in kind.blobs:
        if (blob := getattr(row, name)) is not None:
            content = objects.get(blob) if name == "blob" and is_reference(blob) else blob
            if content is None:
                raise LostObject(f"the object of {row.place} version {row.number} is missing or was changed")
            values[name] = new.seal(name, place, old.open(name, place, content))
    if kind.table is edit_versions:
        values |= sealed_details(new, place, *details_from(tx.conn, place, row))
    return values


def _write(tx: Transaction, kind: _Kind, sealed: Sequence[tuple[AnyRow, dict[str, Any]]]) -> None:
    """Objects are written side by side: the writes of others wait meanwhile."""
    objects = [values for row, values in sealed if is_reference(getattr(row, "blob", None) or b"")]
    for values, reference in zip(objects, stored(tx.conn, [each["blob"] for each in objects]), strict=True):
        values["blob"] = reference
    for row, values in sealed:
        same = (kind.place == row.place) & (kind.number == row.number)
        if kind.table is edit_versions:
            let_go(tx.conn, same)
            keep(tx.conn, [values.get("blob")])
        tx.conn.execute(update(kind.table).where(same).values(values))


def _destroy(conn: Connection, older: Sequence[str]) -> None:
    """Destroy keys that no row is under. The lock waits for those who are just writing under one."""
    locked = conn.scalars(select(k.id).where(k.id.in_(older)).with_for_update()).all()
    used: set[str] = set()
    for kind in _KINDS:
        column = kind.table.c.data_key
        used |= set(conn.scalars(select(column).where(column.in_(locked)).distinct()))
    conn.execute(update(data_keys).where(k.id.in_(set(locked) - used)).values(wrapped=None))


def _vault(conn: Connection) -> Vault:
    vault = vault_of(conn)
    if vault is None:
        raise NotEncrypted("the edit store is not encrypted; start the server with the setting `encryption_key`")
    return vault
