"""Calls of the store for verbatim edits."""

from __future__ import annotations

from incomes_server.edits import VerbatimText
from incomes_server.store import verbatims
from incomes_server.store.calls import StoreCalls


class VerbatimCalls(StoreCalls):
    """A part of `StoreClient`."""

    async def get_verbatim(self, project: str, edit_id: str, version: int) -> VerbatimText:
        """What a recall needs of a verbatim edit version. Raises EditNotFound: the project has no such one."""
        return await self._read(verbatims.get_verbatim, project, edit_id, version)
