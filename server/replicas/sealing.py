"""Encrypts again, in small transactions beside the serving, what is under an older data key or in the clear."""

from __future__ import annotations

import asyncio
import logging

from incomes_server.store.client import StoreClient

from incomes_plugin.errors import Unavailable

logger = logging.getLogger("incomes.sealing")
AT_ONCE = 100
PAUSE_S = 5.0


async def keep_sealed(store: StoreClient, *, at_once: int = AT_ONCE, pause_s: float = PAUSE_S) -> None:
    """Run until cancelled. A store that is away is asked again."""
    while True:
        try:
            done = await store.reseal(at_once)
        except Unavailable as error:
            logger.warning("texts are not encrypted again for now: %s", error.message)
            done = 0
        await asyncio.sleep(0 if done else pause_s)
