"""Admission by the engine's pool: an edit that would not fit is refused when it is added, not when it should serve."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from incomes_server.compression.client import CompressionClient

from incomes_plugin.errors import PoolFull

if TYPE_CHECKING:
    from incomes_plugin.vllm.engine import EditEngine

FRESH_S = 1.0
REMEMBERED = 32_768
RESERVE = 8
"""One part in so many stays free of new edits: a retirement writes pages too before it frees the old ones."""


class PoolRoom:
    """Counts what is promised between two looks at the engine, so that a burst of writes is seen as one.

    Edits that wait for compression count with the sizes they were taken with; those of before a restart with the
    largest size. The hard limit is the commit itself, which refuses and keeps the old state.
    """

    def __init__(self, engine: EditEngine, queue: CompressionClient) -> None:
        self._engine = engine
        self._queue = queue
        self._free = 0
        self._at = float("-inf")
        self._taken: deque[int] = deque(maxlen=REMEMBERED)

    async def take(self, sizes: Sequence[int]) -> None:
        """Reserve room for edits with that many gist entries each.

        Raises:
            PoolFull: names the room and what is needed.
            EngineLost: the engine cannot say.
        """
        num_gists = sum(sizes)
        if time.monotonic() - self._at > FRESH_S or self._free < num_gists:
            await self._look()
        if self._free < num_gists:
            raise PoolFull(
                f"the engine's pool has room for {max(0, self._free)} more gist entries, {num_gists} are needed; "
                "retire edits, or start the server with a larger `pool_gists`"
            )
        self._free -= num_gists
        self._taken.extend(sizes)

    async def fact_gate(self) -> dict[str, int]:
        """Counters of the engine's fact gate. Raises EngineLost."""
        return (await self._engine.status()).fact_gate

    async def _look(self) -> None:
        waiting = await self._queue.stats()
        edits = waiting.interactive + waiting.bulk + waiting.leased
        status = await self._engine.status()
        reserve = status.capacity_gists // RESERVE
        known = list(self._taken)[-edits:] if edits else []
        unknown = (edits - len(known)) * self._engine.adapter.shape.max_gists
        self._free = status.free_gists - reserve - sum(known) - unknown
        self._at = time.monotonic()
