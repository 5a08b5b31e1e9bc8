"""Encrypts again, in small transactions beside the serving, what is under an older data key or in the clear."""

from __future__ import annotations

import asyncio
import logging
import time

from incomes_server.store.client import StoreClient
from incomes_server.store.sealing import RowPlace

from incomes_plugin.errors import Unavailable

logger = logging.getLogger("incomes.sealing")
AT_ONCE = 100
PAUSE_S = 5.0
TRY_AGAIN_S = 600.0
"""Rows that do not open are tried again after so long: a backup may have brought them back."""


async def keep_sealed(store: StoreClient, *, at_once: int = AT_ONCE, pause_s: float = PAUSE_S) -> None:
    """Run until cancelled. A store that is away is asked again; a row that does not open is passed over for a while."""
    damaged: set[RowPlace] = set()
    began_s = time.monotonic()
    while True:
        if time.monotonic() - began_s > TRY_AGAIN_S:
            damaged, began_s = set(), time.monotonic()
        try:
            done = await store.reseal(at_once, damaged)
            damaged.update(done.damaged)
            goes_on = done.moved > 0 or bool(done.damaged)
        except Unavailable as error:
            logger.warning("texts are not encrypted again for now: %s", error.message)
            goes_on = False
        await asyncio.sleep(0 if goes_on else pause_s)
