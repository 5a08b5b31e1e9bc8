"""Projects and their API keys in the database. Only digests of keys are here; a secret is told once, at its making."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from incomes_server.auth.keys import StoredKey, Tenancy
from incomes_server.auth.principal import Scope
from incomes_server.auth.quotas import Limits
from incomes_server.store.commands import (
    CreateApiKey,
    CreateProject,
    RevokeApiKey,
    RotateApiKey,
    SetLimits,
    TenancyCommand,
)
from incomes_server.store.pages import page_of
from incomes_server.store.rows import AnyRow, Transaction
from incomes_server.store.schema import api_keys, meta, project_limits, projects
from sqlalchemy import Connection, delete, insert, select, update

from incomes_plugin.errors import ApiKeyNotFound, ProjectExists
from incomes_plugin.gist.edit import EditKey

k, p = api_keys.c, projects.c
_VERSION = "tenancy_version"


@dataclass(frozen=True)
class StoredProject:
    """A tenant that was made by the API."""

    name: str
    created_at: int


def change(tx: Transaction, command: TenancyCommand) -> list[EditKey]:
    """Apply a command; returns the id of what it made or changed."""
    match command:
        case CreateProject():
            return create_project(tx, command.name)
        case CreateApiKey():
            scopes, digest = command.scopes, command.digest
            return create_key(tx, StoredKey(command.key_id, command.project, command.name, scopes, digest, tx.now))
        case RotateApiKey():
            return rotate_key(tx, command)
        case SetLimits():
            return set_limits(tx, command.project, command.limits)
        case RevokeApiKey():
            return revoke_key(tx, command.project, command.key_id)


def load_changed(conn: Connection, command: TenancyCommand, name: str) -> StoredProject | StoredKey | Limits:
    """The command's result: a project by its name, its limits, or a key by its id."""
    if isinstance(command, SetLimits):
        return limits_of(conn, name)
    return load_project(conn, name) if isinstance(command, CreateProject) else load_key(conn, name)


def create_project(tx: Transaction, name: str) -> list[EditKey]:
    """Raises ProjectExists."""
    if has_project(tx.conn, name):
        raise ProjectExists(f"project {name!r} exists", param="name")
    tx.conn.execute(insert(projects).values(name=name, created_at=tx.now))
    tx.note(f"project {name}", None, "there")
    _count_change(tx)
    return [(name, 0)]


def has_project(conn: Connection, name: str) -> bool:
    """Whether the API made it."""
    return conn.scalar(select(p.seq).where(p.name == name)) is not None


def load_project(conn: Connection, name: str) -> StoredProject:
    """By name."""
    return StoredProject(*conn.execute(select(p.name, p.created_at).where(p.name == name)).one())


def list_projects(conn: Connection, *, limit: int, after: str | None, order: str) -> tuple[list[StoredProject], bool]:
    """A page of all projects, and whether more follow."""
    cursor = select(p.seq).where(p.name == after)
    rows, has_more = page_of(conn, select(projects), p.seq, cursor, limit=limit, after=after, order=order)
    return [StoredProject(row.name, row.created_at) for row in rows], has_more


def create_key(tx: Transaction, key: StoredKey) -> list[EditKey]:
    """Add a key."""
    tx.conn.execute(insert(api_keys).values(asdict(key) | {"scopes": _joined(key.scopes)}))
    tx.note(key.id, None, f"scopes {_joined(key.scopes)}")
    _count_change(tx)
    return [(key.id, 0)]


def rotate_key(tx: Transaction, command: RotateApiKey) -> list[EditKey]:
    """Add a key like an old one, which ends after the grace. Raises ApiKeyNotFound."""
    old = _find(tx, command.project, command.old_id)
    if old.revoked_at is not None or (old.expires_at is not None and old.expires_at <= tx.now):
        raise ApiKeyNotFound(f"the API key {old.id!r} works no longer; make a new one")
    ends = tx.now + command.grace_s
    expires_at = ends if old.expires_at is None else min(ends, old.expires_at)
    tx.conn.execute(update(api_keys).where(k.id == old.id).values(expires_at=expires_at, replaced_by=command.key_id))
    tx.note(old.id, "works", f"works until {expires_at}")
    new = replace(old, id=command.key_id, digest=command.digest, created_at=tx.now, expires_at=None, replaced_by=None)
    return create_key(tx, new)


def revoke_key(tx: Transaction, project: str, key_id: str) -> list[EditKey]:
    """End a key; to end it again is no error. Raises ApiKeyNotFound."""
    if _find(tx, project, key_id).revoked_at is None:
        tx.conn.execute(update(api_keys).where(k.id == key_id).values(revoked_at=tx.now))
        _count_change(tx)
        tx.note(key_id, "works", "revoked")
    return [(key_id, 0)]


def load_key(conn: Connection, key_id: str) -> StoredKey:
    """By id, whether it works or not."""
    return _key_from(conn.execute(select(api_keys).where(k.id == key_id)).one())


def list_keys(
    conn: Connection, project: str, *, limit: int, after: str | None, order: str
) -> tuple[list[StoredKey], bool]:
    """A page of the project's keys, revoked ones too, and whether more follow."""
    cursor = select(k.seq).where(k.project == project, k.id == after)
    query = select(api_keys).where(k.project == project)
    rows, has_more = page_of(conn, query, k.seq, cursor, limit=limit, after=after, order=order)
    return [_key_from(row) for row in rows], has_more


def set_limits(tx: Transaction, project: str, limits: Limits) -> list[EditKey]:
    """Replace what is set for a project, which need not be made here: one with a key in the settings has no row."""
    before = limits_of(tx.conn, project)
    tx.conn.execute(delete(project_limits).where(project_limits.c.project == project))
    tx.conn.execute(insert(project_limits).values(project=project, **asdict(limits)))
    tx.note(f"project {project}", _shown(before), _shown(limits))
    _count_change(tx)
    return [(project, 0)]


def limits_of(conn: Connection, project: str) -> Limits:
    """What is set for a project."""
    row = conn.execute(select(project_limits).where(project_limits.c.project == project)).one_or_none()
    return Limits() if row is None else _limits_from(row)


def tenancy(conn: Connection, known: int) -> Tenancy | None:
    """Projects, their limits, and all keys that are not revoked; None when their version is `known`. Whether a key has
    expired the reader's clock says."""
    version = int(conn.scalar(select(meta.c.value).where(meta.c.key == _VERSION)) or 0)
    if version == known:
        return None
    keys = tuple(_key_from(row) for row in conn.execute(select(api_keys).where(k.revoked_at.is_(None))))
    had_keys = bool(keys) or conn.scalar(select(k.seq).limit(1)) is not None
    limits = {row.project: _limits_from(row) for row in conn.execute(select(project_limits))}
    return Tenancy(version, keys, had_keys, frozenset(conn.scalars(select(p.name))), limits)


def _find(tx: Transaction, project: str, key_id: str) -> StoredKey:
    query = select(api_keys).where(k.project == project, k.id == key_id).with_for_update()
    row = tx.conn.execute(query).one_or_none()
    if row is None:
        raise ApiKeyNotFound(f"no API key {key_id!r}")
    return _key_from(row)


def _count_change(tx: Transaction) -> None:
    """Let every server read keys and limits again."""
    version = tx.conn.scalar(select(meta.c.value).where(meta.c.key == _VERSION).with_for_update())
    if version is None:
        tx.conn.execute(insert(meta).values(key=_VERSION, value="1"))
    else:
        tx.conn.execute(update(meta).where(meta.c.key == _VERSION).values(value=str(int(version) + 1)))


def _key_from(row: AnyRow) -> StoredKey:
    scopes = tuple(Scope(name) for name in row.scopes.split())
    fields = {name: value for name, value in row._asdict().items() if name != "seq"}
    return StoredKey(**{**fields, "scopes": scopes})


def _limits_from(row: AnyRow) -> Limits:
    return Limits(**{name: value for name, value in row._asdict().items() if name != "project"})


def _shown(limits: Limits) -> str:
    given = {name: value for name, value in asdict(limits).items() if value is not None}
    return json.dumps(given) if given else "as the settings say"


def _joined(scopes: Sequence[Scope]) -> str:
    return " ".join(sorted(set(scopes)))
