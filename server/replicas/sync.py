"""The replica loop: poll -> apply in order -> acknowledge by the next poll. Runs beside every engine."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from incomes_server.edits.model import Delta
from incomes_server.store.client import StoreClient

logger = logging.getLogger("incomes.replicas")

Apply = Callable[[Delta], Awaitable[None]]


async def run_replica(
    store: StoreClient,
    apply: Apply,
    *,
    name: str,
    on_caught_up: Callable[[], None],
    on_lost: Callable[[str], None] | None = None,
) -> None:
    """Keep one engine's pool at the store's head until cancelled.

    Args:
        apply: takes the engine from `delta.base` to `delta.version`, all or nothing.
        name: unique among replicas, stable over restarts of the same place.
        on_caught_up: called when the replica has everything: it may serve from now on.
        on_lost: called with a reason when the store has been out of reach for longer than the lease: writes are then
            acknowledged without this replica, so it must stop serving until `on_caught_up` is called again.
    """
    raise NotImplementedError
