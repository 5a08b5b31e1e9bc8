"""Admission by the engine's pool: an edit that would not fit is refused when it is added, not when it should serve."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from incomes_server.store.client import StoreClient

from incomes_plugin.errors import PoolFull
from incomes_plugin.pool.gists import room_for

if TYPE_CHECKING:
    from incomes_plugin.vllm.engine import EditEngine, EngineStatus

FRESH_S = 1.0
RESERVE = 8
"""One part in so many stays free of new edits: a change takes room before what it replaces gives its own back."""


class PoolRoom:
    """Counts what is promised between two looks at engine and store, so that a burst of writes is seen as one.

    Edits that wait for compression take the room that their tokens will need; the store knows how many those are, after
    a restart too. The hard limit is the commit itself, which refuses and keeps the old state.
    """

    def __init__(self, engine: EditEngine, store: StoreClient) -> None:
        self._engine = engine
        self._store = store
        self._free_bytes = 0
        self._at = float("-inf")

    async def take(self, num_tokens: Sequence[int]) -> None:
        """Reserve room for edits of so many tokens each.

        Raises:
            PoolFull: names the room and what is needed.
            EngineLost: the engine cannot say.
        """
        needed = self._bytes(len(num_tokens), sum(num_tokens))
        if time.monotonic() - self._at > FRESH_S or self._free_bytes < needed:
            await self._look()
        if self._free_bytes < needed:
            raise PoolFull(
                f"the engine's pool has room for {max(0, self._free_bytes)} more bytes of gists, {needed} are needed; "
                "retire edits, or start the server with a larger `pool_bytes`"
            )
        self._free_bytes -= needed

    async def status(self) -> EngineStatus:
        """What the engine says of its pool. Raises EngineLost."""
        return await self._engine.status()

    async def _look(self) -> None:
        waiting = await self._store.waiting_size()
        status = await self._engine.status()
        reserve = status.capacity_bytes // RESERVE
        self._free_bytes = status.capacity_bytes - status.used_bytes - reserve - self._bytes(*waiting)
        self._at = time.monotonic()

    def _bytes(self, num_edits: int, num_tokens: int) -> int:
        return room_for(self._engine.adapter, self._engine.dtype, num_edits, num_tokens)
