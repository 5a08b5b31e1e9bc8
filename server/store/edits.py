"""Edits in the database: add, replace, retire, restore, get, list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from incomes_server.edits import (
    WAITING,
    Edit,
    EditStatus,
    IdPrefix,
    NewEdit,
    OnConflict,
    VerbatimState,
    check_version,
    new_id,
    sources_of,
)
from incomes_server.edits.lifecycle import next_due
from incomes_server.store.conflicts import is_in_conflict, with_conflicts
from incomes_server.store.edit_sets import find_edit_set
from incomes_server.store.log import append
from incomes_server.store.pages import page_of
from incomes_server.store.rows import (
    AnyRow,
    Transaction,
    chunks,
    details_from,
    edit_from,
    encode_ids,
    encode_tokens,
    sealed_details,
    select_edits,
    text_from,
)
from incomes_server.store.schema import edit_sets, edit_versions, edits, verbatims
from incomes_server.store.superseded import check_superseded
from incomes_server.store.vault import Box, newest_box, search_terms
from incomes_server.store.verbatims import add_verbatims, keys_of
from sqlalchemy import Connection, func, insert, select, update

from incomes_plugin.errors import EditConflict, EditNotFound, InvalidValue
from incomes_plugin.gist.edit import EditKey, EditKind

e, v = edits.c, edit_versions.c


def get_edit(conn: Connection, project: str, edit_id: str, version: int | None = None) -> Edit:
    """The newest version, or the given one. Raises EditNotFound."""
    wanted = v.version == (e.head_version if version is None else version)
    row = conn.execute(select_edits().where(e.project == project, e.id == edit_id, wanted)).one_or_none()
    if row is None:
        raise EditNotFound(f"no edit {edit_id!r}" + (f" version {version}" if version is not None else ""))
    return with_conflicts(conn, [edit_from(conn, row)])[0]


def get_edits(conn: Connection, project: str, edit_ids: Sequence[str]) -> list[Edit]:
    """The newest version of each. Raises EditNotFound when one is missing."""
    found: dict[str, Edit] = {}
    for part in chunks(edit_ids):
        query = select_edits().where(e.project == project, e.id.in_(part), v.version == e.head_version)
        found |= {row.id: edit_from(conn, row) for row in conn.execute(query)}
    missing = [edit_id for edit_id in edit_ids if edit_id not in found]
    if missing:
        raise EditNotFound(f"no edit {missing[0]!r}")
    return with_conflicts(conn, [found[edit_id] for edit_id in edit_ids])


def list_edits(
    conn: Connection,
    project: str,
    *,
    edit_set: str | None,
    status: str | None,
    document_id: str | None = None,
    author: str | None = None,
    conflict: bool | None = None,
    kind: EditKind | None = None,
    verbatim: VerbatimState | None = None,
    limit: int,
    after: str | None,
    order: str,
) -> tuple[list[Edit], bool]:
    """A page of the project's edits at their newest version, and whether more follow."""
    query = select_edits().where(e.project == project, v.version == e.head_version)
    if edit_set is not None:
        query = query.where(e.edit_set == find_edit_set(conn, project, edit_set).id)
    if status is not None:
        query = query.where(v.status == status)
    if document_id is not None:
        query = query.where(v.document_id.in_(search_terms(conn, project, "document_id", document_id)))
    if author is not None:
        query = query.where(v.author.in_(search_terms(conn, project, "author", author)))
    if conflict is not None:
        query = query.where(is_in_conflict() if conflict else ~is_in_conflict())
    if kind is not None:
        query = query.where(func.coalesce(v.kind, "fact") == kind)
    if verbatim is not None:
        query = query.where(verbatims.c.state == verbatim)
    cursor = select(e.seq).where(e.project == project, e.id == after)
    rows, has_more = page_of(conn, query, e.seq, cursor, limit=limit, after=after, order=order)
    return with_conflicts(conn, [edit_from(conn, row) for row in rows]), has_more


def add_edits(tx: Transaction, project: str, edit_set: str, new: Sequence[NewEdit]) -> list[EditKey]:
    """All pending, or none. Raises EditSetNotFound, EditNotFound, EditConflict."""
    found = find_edit_set(tx.conn, project, edit_set, lock=True)
    _check_new(tx.conn, found.id, new)
    ids = [new_id(IdPrefix.EDIT) for _ in new]
    rows = [
        {"id": edit_id, "edit_set": found.id, "project": project, "external_id": edit.external_id}
        | {"created_at": tx.now, "head_version": 1, "supersedes": encode_ids(edit.supersedes)}
        for edit_id, edit in zip(ids, new, strict=True)
    ]
    if rows:
        box = newest_box(tx.conn, project, tx.now)
        tx.conn.execute(insert(edits), rows)
        versions = [_version(tx, box, i, 1, n, found) for i, n in zip(ids, new, strict=True)]
        tx.conn.execute(insert(edit_versions), versions)
        add_verbatims(tx, box, [((i, 1), n.found_by) for i, n in zip(ids, new, strict=True)])
    for edit_id in ids:
        tx.note(edit_id, None, "version 1 pending")
    return [(edit_id, 1) for edit_id in ids]


def check_edits(conn: Connection, project: str, edit_set: str, new: Sequence[NewEdit]) -> None:
    """Raise what `add_edits` would."""
    _check_new(conn, find_edit_set(conn, project, edit_set).id, new)


def _check_new(conn: Connection, edit_set: str, new: Sequence[NewEdit]) -> None:
    check_superseded(conn, edit_set, [edit_id for edit in new for edit_id in edit.supersedes])
    _check_external_ids(conn, edit_set, [edit.external_id for edit in new if edit.external_id is not None])


def replace_edit(
    tx: Transaction, project: str, edit_id: str, new: NewEdit, if_match: tuple[int, ...] | None = None
) -> list[EditKey]:
    """A new pending version; one that waited is superseded, an active one serves on.

    Raises:
        EditConflict, EtagMismatch: nothing changes.
    """
    row = find_row(tx.conn, project, edit_id)
    check_version(edit_id, row.head_version, if_match)
    if row.retired_at is not None:
        raise EditConflict(f"edit {edit_id} is retired")
    if new.external_id not in (None, row.external_id):
        _check_external_ids(tx.conn, row.edit_set, [new.external_id])
    version = row.head_version + 1
    tx.conn.execute(
        update(edit_versions)
        .where(v.edit_id == edit_id, v.status.in_(WAITING))
        .values(status=EditStatus.SUPERSEDED, updated_at=tx.now)
    )
    box, options = newest_box(tx.conn, project, tx.now), _options(tx.conn, row.edit_set)
    tx.conn.execute(insert(edit_versions).values(_version(tx, box, edit_id, version, new, options)))
    add_verbatims(tx, box, [((edit_id, version), new.found_by)])
    external_id = row.external_id if new.external_id is None else new.external_id
    tx.conn.execute(update(edits).where(e.id == edit_id).values(head_version=version, external_id=external_id))
    tx.changed.add(edit_id)
    tx.note(edit_id, f"version {row.head_version}", f"version {version} pending")
    return [(edit_id, version)]


def retire_edit(tx: Transaction, project: str, edit_id: str, if_match: tuple[int, ...] | None = None) -> list[EditKey]:
    """Take an edit out of the snapshot for good. Retiring it again is no error: the caller may not have received the
    first answer. Raises EtagMismatch."""
    row = find_row(tx.conn, project, edit_id)
    check_version(edit_id, row.head_version, if_match)
    if row.retired_at is not None:
        tx.note(edit_id, "retired", "retired")
        return [(edit_id, row.head_version)]
    left = None
    if row.active_version is not None:
        left = append(tx, row.edit_set, removed=[(edit_id, row.active_version)])
    tx.conn.execute(
        update(edit_versions)
        .where(v.edit_id == edit_id, v.status.in_(sources_of(EditStatus.RETIRED)))
        .values(status=EditStatus.RETIRED, updated_at=tx.now, set_version=left)
    )
    tx.conn.execute(update(edits).where(e.id == edit_id).values(retired_at=tx.now, active_version=None))
    tx.changed.add(edit_id)
    tx.note(edit_id, f"version {row.head_version}", "retired")
    return [(edit_id, row.head_version)]


def restore_edit(
    tx: Transaction,
    project: str,
    edit_id: str,
    version: int,
    token_ids: Sequence[int],
    if_match: tuple[int, ...] | None = None,
) -> list[EditKey]:
    """The content of a retired edit's newest version as the next one, pending; times that have passed are left out.
    Raises EditConflict, EtagMismatch."""
    row = find_row(tx.conn, project, edit_id)
    check_version(edit_id, row.head_version, if_match)
    if row.retired_at is None or row.erased_at is not None:
        why = "erased; add it anew" if row.erased_at is not None else "not retired"
        raise EditConflict(f"edit {edit_id} is {why}")
    if row.head_version != version:
        raise EditConflict(f"edit {edit_id} has a newer version than {version}; read it again")
    if tx.conn.scalar(select(edit_sets.c.deleted_at).where(edit_sets.c.id == row.edit_set)) is not None:
        raise EditConflict(f"the edit set of {edit_id} is deleted")
    if row.external_id is not None:
        _check_external_ids(tx.conn, row.edit_set, [row.external_id])
    old = tx.conn.execute(select(edit_versions).where(v.edit_id == edit_id, v.version == version)).one()
    start, end = (at if at is not None and at > tx.now else None for at in (old.effective_from, old.expires_at))
    box = newest_box(tx.conn, project, tx.now)
    new: dict[str, Any] = {"text": box.seal_text((edit_id, version + 1), text_from(tx.conn, old))}
    new |= sealed_details(box, (edit_id, version + 1), *details_from(tx.conn, (edit_id, version), old))
    new |= {"effective_from": start, "expires_at": end}
    new |= _pending(tx, box, edit_id, version + 1, token_ids, start, end)
    new["on_conflict"], new["kind"] = old.on_conflict, old.kind
    new["needs_approval"] = _options(tx.conn, row.edit_set).two_person
    tx.conn.execute(insert(edit_versions).values(new))
    add_verbatims(tx, box, [((edit_id, version + 1), keys_of(tx.conn, (edit_id, version)))])
    tx.conn.execute(update(edits).where(e.id == edit_id).values(head_version=version + 1, retired_at=None))
    tx.changed.add(edit_id)
    tx.note(edit_id, "retired", f"version {version + 1} pending")
    return [(edit_id, version + 1)]


def find_row(conn: Connection, project: str, edit_id: str) -> AnyRow:
    """Its row, locked. Raises EditNotFound."""
    row = conn.execute(select(edits).where(e.project == project, e.id == edit_id).with_for_update()).one_or_none()
    if row is None:
        raise EditNotFound(f"no edit {edit_id!r}")
    return row


def _version(tx: Transaction, box: Box, edit_id: str, version: int, new: NewEdit, options: AnyRow) -> dict[str, Any]:
    """`options`: the row of its edit set."""
    if not new.token_ids:
        raise InvalidValue("an edit has at least one token", param="text")
    text = box.seal_text((edit_id, version), new.text)
    content = {"text": text, **sealed_details(box, (edit_id, version), new.metadata, new.provenance)}
    content |= {"effective_from": new.effective_from, "expires_at": new.expires_at}
    pending = _pending(tx, box, edit_id, version, new.token_ids, new.effective_from, new.expires_at)
    pending["on_conflict"] = new.on_conflict or options.on_conflict or OnConflict.FLAG
    return content | pending | {"needs_approval": options.two_person, "kind": new.kind}


def _options(conn: Connection, edit_set: str) -> AnyRow:
    return conn.execute(select(edit_sets).where(edit_sets.c.id == edit_set)).one()


def _pending(
    tx: Transaction,
    box: Box,
    edit_id: str,
    version: int,
    token_ids: Sequence[int],
    effective_from: int | None,
    expires_at: int | None,
) -> dict[str, Any]:
    """All but the content of a version that is to be compressed."""
    return {
        "edit_id": edit_id,
        "version": version,
        "status": EditStatus.PENDING,
        "created_at": tx.now,
        "updated_at": tx.now,
        "num_tokens": len(token_ids),
        "gist_bytes": 0,
        "token_ids": box.seal("token_ids", (edit_id, version), encode_tokens(token_ids)),
        "data_key": box.key_id,
        "due_at": next_due(effective_from, expires_at, tx.now),
        "written_by": tx.actor,
    }


def _check_external_ids(conn: Connection, edit_set: str, external_ids: Sequence[str | None]) -> None:
    if len(set(external_ids)) < len(external_ids):
        raise EditConflict("the same external_id twice in one request", param="external_id")
    for part in chunks(external_ids):
        taken = select(e.external_id).where(e.edit_set == edit_set, e.retired_at.is_(None), e.external_id.in_(part))
        if (found := conn.scalars(taken).first()) is not None:
            raise EditConflict(f"external_id {found!r} is taken in this edit set", param="external_id")
