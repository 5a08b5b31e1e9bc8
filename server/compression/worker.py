"""The worker loop: lease -> compress -> complete. Runs where the model is: the serving engine, or a dedicated one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from incomes_server.compression.client import CompressionClient
from incomes_server.edits.model import CompressionJob, CompressionOutcome

from incomes_plugin.errors import IncomesError

logger = logging.getLogger("incomes.compression")

Compress = Callable[[Sequence[CompressionJob]], Awaitable[list[CompressionOutcome]]]

WAIT_S = 10.0
MAX_BACKOFF_S = 5.0


async def run_worker(client: CompressionClient, compress: Compress, *, name: str, batch: int) -> None:
    """Compress until cancelled. A batch that raises is reported as failed; the scheduler decides about retries.

    Args:
        compress: makes one outcome per job, in any order; missing ones count as failed.
        batch: most jobs in one call of `compress`.
    """
    backoff_s = 0.05
    while True:
        try:
            lease = await client.lease(name, batch, timeout_s=WAIT_S)
            if lease.jobs:
                await client.complete(lease.id, await _outcomes(compress, lease.jobs))
            backoff_s = 0.05
        except IncomesError as error:
            logger.warning("worker %s lost the scheduler, trying again in %.2f s: %s", name, backoff_s, error)
            await asyncio.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, MAX_BACKOFF_S)


async def _outcomes(compress: Compress, jobs: Sequence[CompressionJob]) -> list[CompressionOutcome]:
    """What `compress` made of the jobs. One by one when the batch fails as a whole: a bad edit spoils no other."""
    try:
        return await compress(jobs)
    except Exception as error:  # noqa: BLE001 - whatever the engine raises is the reason of these edits' failure
        logger.warning("compressing %d edits failed: %s: %s", len(jobs), type(error).__name__, error)
        if len(jobs) == 1:
            return [
                CompressionOutcome(jobs[0].edit_id, jobs[0].version, None, error=f"{type(error).__name__}: {error}")
            ]
    return [outcome for job in jobs for outcome in await _outcomes(compress, [job])]
