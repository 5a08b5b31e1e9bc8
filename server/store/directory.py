"""Edit set names -> ids for the chat gate: one store call for a name, then none for a second."""

from __future__ import annotations

import asyncio
import time

from incomes_server.edits.model import EditSet
from incomes_server.store.client import StoreClient

from incomes_plugin.errors import EditSetNotFound, NotReady

FRESH_S = 1.0
ANSWER_WITHIN_S = 5.0
MAX_ENTRIES = 65536


class EditSetDirectory:
    """Caches which id a project's edit set has.

    A name is looked up again after `FRESH_S`: so long may a set that another server deleted still resolve, and then
    to an empty snapshot, because deleting retires its edits first. What the store does not know is never cached.
    """

    def __init__(self, store: StoreClient, default_set: str) -> None:
        self.store = store
        self._default_set = default_set
        self._ids: dict[tuple[str, str], tuple[str, float]] = {}

    async def id_of(self, project: str, edit_set: str | None) -> str:
        """Id of the named set of the project; None = the project's default set, made if needed.

        Raises:
            EditSetNotFound: the project has no such set.
            NotReady: the store does not answer.
        """
        key = (project, edit_set or self._default_set)
        found, at = self._ids.get(key, ("", 0.0))
        if found and time.monotonic() - at < FRESH_S:
            return found
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                item = await self._look_up(project, key[1])
        except TimeoutError:
            raise NotReady(f"the edit store does not answer within {ANSWER_WITHIN_S:g} s") from None
        if len(self._ids) >= MAX_ENTRIES:
            self._ids.clear()
        self._ids[key] = (item.id, time.monotonic())
        return item.id

    async def _look_up(self, project: str, edit_set: str) -> EditSet:
        try:
            return await self.store.get_edit_set(project, edit_set)
        except EditSetNotFound:
            if edit_set != self._default_set:
                raise
            return await self.store.ensure_edit_set(project, edit_set)

    def forget(self, edit_set_id: str) -> None:
        """The set was deleted here: the next request must not find it."""
        self._ids = {key: entry for key, entry in self._ids.items() if entry[0] != edit_set_id}
