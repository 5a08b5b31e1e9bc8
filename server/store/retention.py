"""The loop that has the store forget what is older than the setting says. Runs beside each server; two do no harm."""

from __future__ import annotations

import asyncio
import logging

from incomes_server.store.client import StoreClient

from incomes_plugin.errors import IncomesError

logger = logging.getLogger("incomes.retention")

EVERY_S = 60.0


async def keep_tidy(store: StoreClient, keep_history_s: float) -> None:
    """Until cancelled. A store that does not answer is asked again a minute later."""
    while True:
        try:
            more = await store.tidy(keep_history_s)
        except IncomesError as error:
            logger.warning("old snapshots are not forgotten now: %s", error.message)
            more = False
        await asyncio.sleep(0 if more else EVERY_S)
