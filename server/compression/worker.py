"""The worker loop: lease -> compress -> store; the next lease says what became of this one.

Runs where the model is: the serving engine, or another.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

from incomes_server.compression.client import CompressionClient
from incomes_server.compression.model import Lease, LeaseDone
from incomes_server.store.client import StoreClient

from incomes_plugin.errors import IncomesError, Overloaded, Unavailable
from incomes_plugin.gist.edit import Captured, CaptureJob, EditKey

logger = logging.getLogger("incomes.compression")

Compress = Callable[[Sequence[CaptureJob]], Awaitable[list[Captured]]]
Compare = Callable[[str, Sequence[Captured], Sequence[bytes]], Awaitable[list[Captured]]]

WAIT_S = 10.0
SILENCE_S = 10.0
"""So long the jobs of a worker that was killed stay with it."""
MIN_BACKOFF_S = 0.05
MAX_BACKOFF_S = 5.0
COMPARISONS = 20
"""Times that edits are compared once more because others have joined meanwhile."""


async def run_worker(
    client: CompressionClient,
    store: StoreClient,
    compress: Compress,
    compare: Compare | None = None,
    *,
    name: str,
    batch: int,
) -> None:
    """Compress until cancelled. Jobs that raise are reported as failed; the scheduler decides about retries.

    Args:
        compress: makes one outcome per job, in any order; missing ones count as failed. When it raises `Unavailable` or
            `Overloaded`, or the store cannot keep what it made, the jobs go back untried.
        compare: looks for edits of a set that new ones are in conflict with, see `EditEngine.compare`; None = nobody
            does, and the edits say so.
        name: unique among workers; the same name again means this worker was restarted.
        batch: most jobs in one call of `compress`.
    """
    backoff_s = MIN_BACKOFF_S
    done: LeaseDone | None = None
    while True:
        try:
            told, done = done, None
            lease = await client.lease(name, batch, timeout_s=WAIT_S, done=told, silence_s=SILENCE_S)
            if lease.jobs:
                async with _beats(client, lease.id):
                    done = await _work(client, store, compress, compare, lease)
            backoff_s = MIN_BACKOFF_S
        except IncomesError as error:
            logger.warning("worker %s stops for %.2f s: %s: %s", name, backoff_s, type(error).__name__, error)
            await asyncio.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, MAX_BACKOFF_S)


@asynccontextmanager
async def _beats(client: CompressionClient, lease_id: str) -> AsyncIterator[None]:
    """Keep the lease while a batch is in the model."""
    task = asyncio.create_task(_beat(client, lease_id))
    try:
        yield
    finally:
        task.cancel()


async def _beat(client: CompressionClient, lease_id: str) -> None:
    while True:
        await asyncio.sleep(SILENCE_S / 3)
        with suppress(IncomesError):
            await client.beat(lease_id)


async def _work(
    client: CompressionClient, store: StoreClient, compress: Compress, compare: Compare | None, lease: Lease
) -> LeaseDone:
    """Gists go straight to the store; the scheduler is told what became of the jobs."""
    try:
        outcomes = await _outcomes(compress, lease.jobs)
        made = [captured for captured in outcomes if captured.blob is not None]
        if made:
            sets = {job.edit: job.edit_set for job in lease.jobs if job.edit_set is not None}
            await _record(store, compare, made, sets if compare else {})
    except (Unavailable, Overloaded):
        await client.release(lease.id)
        raise
    reasons = {captured.edit: captured.error for captured in outcomes if captured.error is not None}
    return LeaseDone(lease.id, tuple(captured.edit for captured in made), reasons)


async def _outcomes(compress: Compress, jobs: Sequence[CaptureJob]) -> list[Captured]:
    """The outcomes of the jobs. If the batch fails as a whole, the jobs are tried one by one, so that a bad edit fails
    alone."""
    try:
        return await compress(jobs)
    except (Unavailable, Overloaded):
        raise
    except Exception as error:  # noqa: BLE001 - whatever the engine raises is the reason of these edits' failure
        logger.warning("compressing %d edits failed: %s: %s", len(jobs), type(error).__name__, error)
        reason = f"{type(error).__name__}: {error}"
    if len(jobs) == 1:
        return [Captured(*jobs[0].edit, None, reason)]
    return [outcome for job in jobs for outcome in await _outcomes(compress, [job])]


async def _record(
    store: StoreClient, compare: Compare | None, made: Sequence[Captured], sets: Mapping[EditKey, str]
) -> None:
    """Store gists with what they are in conflict with. The store names edits that they were not compared with yet.

    Args:
        sets: of those that are compared.
    """
    beside: dict[str, dict[EditKey, bytes]] = defaultdict(dict)
    backoff_s = MIN_BACKOFF_S
    for _ in range(COMPARISONS):
        made = await _compared(compare, made, sets, beside)
        again = await store.record_outcomes(made)
        if not again:
            return
        wanted = {each.edit for each in again}
        made = [captured for captured in made if captured.edit in wanted]
        for each in again:
            new = [key for key in each.others if key not in beside[each.edit_set]]
            beside[each.edit_set] |= await store.ready_gists(each.edit_set, new) if new else {}
        if any(each.behind for each in again):
            await asyncio.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, MAX_BACKOFF_S)
    raise Unavailable("other edits join faster than new ones can be compared with them")


async def _compared(
    compare: Compare | None,
    made: Sequence[Captured],
    sets: Mapping[EditKey, str],
    beside: Mapping[str, Mapping[EditKey, bytes]],
) -> list[Captured]:
    """The same, those in `sets` compared; where that fails they say so, and the store knows what follows."""
    told = {captured.edit: captured for captured in made}
    for edit_set in dict.fromkeys(sets[edit] for edit in told if edit in sets):
        new = [captured for captured in made if sets.get(captured.edit) == edit_set]
        own = {captured.edit for captured in new}
        others = [blob for key, blob in beside.get(edit_set, {}).items() if key not in own]
        assert compare is not None
        told |= {captured.edit: captured for captured in await compare(edit_set, new, others)}
    return list(told.values())
