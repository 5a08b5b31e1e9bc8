"""Calls of the store for projects, API keys and the audit log."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from incomes_server.auth.keys import StoredKey, Tenancy
from incomes_server.auth.principal import Scope
from incomes_server.auth.quotas import Limits
from incomes_server.edits.audit import AuditEvent
from incomes_server.store import api_keys, audit, commands, requests, sealing
from incomes_server.store.api_keys import StoredProject
from incomes_server.store.calls import StoreCalls
from incomes_server.store.sealing import DataKeyState, Resealed, RowPlace


class TenancyCalls(StoreCalls):
    """A part of `StoreClient`."""

    async def list_audit_events(
        self, project: str, *, limit: int, after: str | None, order: str
    ) -> tuple[list[AuditEvent], bool]:
        """A page of the project's audit log, and whether more follow."""
        return await self._read(audit.list_events, project, limit=limit, after=after, order=order)

    async def has_request(self, project: str, request_id: str) -> bool:
        """Whether a write with this id was applied: sent again, it needs no room."""
        return await self._read(requests.has_request, project, request_id)

    async def tenancy(self, known: int) -> Tenancy | None:
        """Projects, limits, and the keys that are not revoked; None when their version is `known`."""
        return await self._read(api_keys.tenancy, known)

    async def set_limits(self, project: str, limits: Limits, *, request_id: str) -> Limits:
        """Replace what is set for the project."""
        return await self._write(commands.SetLimits(project, request_id, limits))

    async def limits_of(self, project: str) -> Limits:
        """What is set for the project."""
        return await self._read(api_keys.limits_of, project)

    async def data_key(self, project: str) -> DataKeyState:
        """The project's data key. Raises NotEncrypted."""
        return await self._read(sealing.data_key_state, project)

    async def rotate_data_key(self, project: str, *, request_id: str) -> DataKeyState:
        """A new data key; what is there follows. Raises NotEncrypted."""
        return await self._write(commands.RotateDataKey(project, request_id))

    async def erase_data_keys(self, project: str, *, request_id: str) -> DataKeyState:
        """Delete the project's edit sets and destroy its keys, for good. Raises NotEncrypted."""
        return await self._write(commands.EraseDataKeys(project, request_id))

    async def reseal(self, limit: int, damaged: Collection[RowPlace] = ()) -> Resealed:
        """Bring rows under their project's newest data key, at most `limit` of a kind, without those that are known not
        to open."""
        return await self._write(commands.Reseal(limit, tuple(damaged)))

    async def create_project(self, operator: str, name: str, *, request_id: str) -> StoredProject:
        """`operator`: project of who asks. Raises ProjectExists."""
        return await self._write(commands.CreateProject(operator, request_id, name))

    async def list_projects(self, *, limit: int, after: str | None, order: str) -> tuple[list[StoredProject], bool]:
        """A page of the projects that were made by the API, and whether more follow."""
        return await self._read(api_keys.list_projects, limit=limit, after=after, order=order)

    async def has_project(self, name: str) -> bool:
        """Whether the API made such a project."""
        return await self._read(api_keys.has_project, name)

    async def create_key(
        self, project: str, name: str, scopes: Sequence[Scope], *, key_id: str, digest: str, request_id: str
    ) -> StoredKey:
        """A new key. When the request came before, the one of that time, with another id."""
        return await self._write(commands.CreateApiKey(project, request_id, name, tuple(scopes), key_id, digest))

    async def rotate_key(
        self, project: str, old_id: str, grace_s: int, *, key_id: str, digest: str, request_id: str
    ) -> StoredKey:
        """The new key; the old one works for `grace_s` more. Raises ApiKeyNotFound, also when it works no longer."""
        return await self._write(commands.RotateApiKey(project, request_id, old_id, grace_s, key_id, digest))

    async def revoke_key(self, project: str, key_id: str, *, request_id: str) -> StoredKey:
        """Within a second no server takes the key any more. Raises ApiKeyNotFound."""
        return await self._write(commands.RevokeApiKey(project, request_id, key_id))

    async def list_keys(
        self, project: str, *, limit: int, after: str | None, order: str
    ) -> tuple[list[StoredKey], bool]:
        """A page of the project's keys, revoked ones too, and whether more follow."""
        return await self._read(api_keys.list_keys, project, limit=limit, after=after, order=order)
