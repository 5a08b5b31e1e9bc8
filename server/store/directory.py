"""Turns names of edit sets into ids for the chat gate. The store is asked for a name once a second at most."""

from __future__ import annotations

import asyncio
import time

from incomes_server.edits.model import EditSet
from incomes_server.store.client import StoreClient

from incomes_plugin.errors import EditSetNotFound, NotReady

FRESH_S = 1.0
ANSWER_WITHIN_S = 10.0
MAX_ENTRIES = 65536


class EditSetDirectory:
    """Caches which id a project's edit set has.

    A name is looked up again after `FRESH_S`. For that long a set that another server has deleted may still be found;
    its snapshot is empty then, because deleting a set retires its edits first. A name that the store does not know is
    not cached.
    """

    def __init__(self, store: StoreClient, default_set: str) -> None:
        self.store = store
        self._default_set = default_set
        self._ids: dict[tuple[str, str], tuple[str, float]] = {}
        self._looking: dict[tuple[str, str], asyncio.Task[EditSet]] = {}

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
                item = await asyncio.shield(self._looked_up(key))
        except TimeoutError:
            raise NotReady(f"the edit store does not answer within {ANSWER_WITHIN_S:g} s") from None
        if len(self._ids) >= MAX_ENTRIES:
            self._ids.clear()
        self._ids[key] = (item.id, time.monotonic())
        return item.id

    def _looked_up(self, key: tuple[str, str]) -> asyncio.Task[EditSet]:
        """One question for all who ask at the same time."""
        if key not in self._looking:
            self._looking[key] = task = asyncio.create_task(self._look_up(*key))
            task.add_done_callback(lambda _: self._looking.pop(key))
        return self._looking[key]

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
