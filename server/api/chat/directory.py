"""Edit set names -> ids for the chat gate: one store call for a name, then none for a second."""

from __future__ import annotations

import time

from incomes_server.store.client import StoreClient

from incomes_plugin.errors import EditSetNotFound

FRESH_S = 1.0
MAX_ENTRIES = 65536


class EditSetDirectory:
    """Caches which id a project's edit set has.

    A name is looked up again after `FRESH_S`: so long may a set that another server deleted still resolve, and then
    to an empty snapshot, because deleting retires its edits first. What the store does not know is never cached.
    """

    def __init__(self, store: StoreClient, default_set: str) -> None:
        self._store = store
        self._default_set = default_set
        self._ids: dict[tuple[str, str], tuple[str, float]] = {}

    async def id_of(self, project: str, edit_set: str | None) -> str:
        """Id of the named set of the project; None = the project's default set, made if needed.

        Raises:
            EditSetNotFound: the project has no such set.
        """
        key = (project, edit_set or self._default_set)
        found, at = self._ids.get(key, ("", 0.0))
        if found and time.monotonic() - at < FRESH_S:
            return found
        try:
            item = await self._store.get_edit_set(project, key[1])
        except EditSetNotFound:
            if key[1] != self._default_set:
                raise
            item = await self._store.ensure_edit_set(project, self._default_set)
        if len(self._ids) >= MAX_ENTRIES:
            self._ids.clear()
        self._ids[key] = (item.id, time.monotonic())
        return item.id

    def forget(self, edit_set_id: str) -> None:
        """The set was deleted here: the next request must not find it."""
        self._ids = {key: entry for key, entry in self._ids.items() if entry[0] != edit_set_id}
