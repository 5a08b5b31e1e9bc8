"""The loop that has vectors of verbatim edits made, below serving.

store ──lease──► run_verbatims ──► CramActor (a process of its own) ──record──► the serving engine says the text
                       ▲                                                           │ to the byte: verified
                       └── every few seconds: still alive, what is still wanted    └ else: text, with the reason
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from typing import Any, cast

from incomes_server.compression.cramming import CramActor, CramLimits
from incomes_server.edits.verbatim import VerbatimJob, VerbatimLease, VerbatimOutcome, VerbatimState
from incomes_server.store.client import StoreClient
from incomes_server.store.ray_call import call

from incomes_plugin.errors import IncomesError, NotReady, Unavailable, UnsupportedEngine
from incomes_plugin.gist.edit import EditKey
from incomes_plugin.lab.verbatim.serving import VECTORS, Recaller, RecallStream

logger = logging.getLogger("incomes.verbatim")

POLL_S, WORK_S, LEASE_S = 2.0, 5.0, 60
RENEW_S = LEASE_S / 4
"""A pass of many texts, or a recall, may take longer than a lease."""
IDLE_S = 300.0
"""After so long without work the process ends, and its copy of the base with it."""
MAX_BACKOFF_S = 30.0


def start_cram_actor(limits: CramLimits) -> Any:
    """A new process on this machine; it ends with this one. A crash is an attempt of all that it had, so it is not
    restarted by Ray, and as many texts as it had are leased one by one afterwards: one that ends processes takes no
    others with it twice."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(CramActor).options(num_cpus=0, max_restarts=0, scheduling_strategy=here).remote(limits)


class _Process:
    """The actor, begun when there is work, ended when there is none."""

    def __init__(self, start: Callable[[], Any]) -> None:
        self._start, self._actor, self._used_s = start, cast(Any, None), 0.0

    @property
    def running(self) -> bool:
        """Whether it has what it was given."""
        return self._actor is not None

    async def begin(self) -> None:
        """Have it running before anything is leased for it. Raises NotReady: it does not start."""
        if self._actor is None:
            self._actor = self._start()
            await self.work((), ())

    async def work(self, held: Sequence[EditKey], jobs: Sequence[VerbatimJob]) -> list[VerbatimOutcome]:
        """See `CramActor.work`. Raises NotReady: it broke off, and is ended."""
        self._used_s = time.monotonic()
        try:
            found: list[VerbatimOutcome] = await call(self._actor.work.remote(tuple(held), tuple(jobs), WORK_S))
        except BaseException as error:
            self.end()
            if isinstance(error, Exception) and not isinstance(error, IncomesError):
                raise NotReady(f"the process that makes vectors broke off: {type(error).__name__}") from error
            raise
        return found

    def end(self, idle_s: float = 0.0) -> None:
        """End it if nobody has used it for so long."""
        if self._actor is not None and time.monotonic() - self._used_s >= idle_s:
            import ray

            ray.kill(self._actor)
            self._actor = None


async def run_verbatims(
    store: StoreClient, recaller: Recaller, start: Callable[[], Any], *, name: str, texts: int
) -> None:
    """Make vectors until cancelled.

    Args:
        recaller: has the serving engine say what was made, before it is called verified.
        start: begins a `CramActor`.
        name: of the worker; the same name again means that it was restarted, and has what it had.
        texts: at the same time.
    """
    process, held, backoff_s, alone = _Process(start), dict[EditKey, VerbatimJob](), POLL_S, 0
    made: list[VerbatimOutcome] = []
    origin = json.dumps(asdict((await recaller.frame()).origin))

    async def lease(edits: Sequence[EditKey], limit: int) -> VerbatimLease:
        return await store.lease_verbatims(name, edits, limit, lease_s=LEASE_S, origin=origin)

    try:
        while True:
            try:
                if made:
                    await store.record_verbatims(name, made)
                    made = []
                if not held and not await store.verbatims_wait(name):
                    process.end(IDLE_S)
                    await asyncio.sleep(POLL_S)
                    continue
                await process.begin()
                leased = await lease(list(held), (1 if alone else texts) - len(held))
                held = {edit: held[edit] for edit in leased.held} | {job.edit: job for job in leased.jobs}
                async with _kept(lease, list(held)):
                    outcomes = await process.work(leased.held, leased.jobs)
                    texts_done = [held.pop(outcome.edit).text for outcome in outcomes]
                    for outcome, text in zip(outcomes, texts_done, strict=True):
                        made.append(await judged(recaller, outcome, text))
                backoff_s, alone = POLL_S, max(0, alone - len(outcomes))
            except IncomesError as error:
                logger.warning("making vectors stops for %.0f s: %s: %s", backoff_s, type(error).__name__, error)
                if not process.running:
                    held, alone = {}, max(alone, len(held))
                await asyncio.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, MAX_BACKOFF_S)
    finally:
        process.end()


@asynccontextmanager
async def _kept(
    lease: Callable[[Sequence[EditKey], int], Awaitable[Any]], edits: Sequence[EditKey]
) -> AsyncIterator[None]:
    """Stay the worker of texts inside the block, however long it takes."""

    async def renew() -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            try:
                await lease(edits, 0)
            except IncomesError as error:
                logger.warning("leases of verbatim edits were not renewed: %s", error)

    renewing = asyncio.create_task(renew())
    try:
        yield
    finally:
        renewing.cancel()
        await asyncio.wait([renewing])


async def judged(recaller: Recaller, outcome: VerbatimOutcome, text: str) -> VerbatimOutcome:
    """Verified only if the serving engine says the text, to the byte, from the bytes that are to be stored.

    Raises:
        Unavailable: it cannot be asked now.
    """
    if outcome.record is None:
        return outcome
    stream = RecallStream(recaller, text, outcome.record, None)
    said = "".join([piece async for piece in stream.pieces()])
    if stream.source == VECTORS and said == text:
        return outcome
    if stream.reason != UnsupportedEngine.code and not str(stream.reason).startswith("verbatim_"):
        raise Unavailable(f"the serving engine could not be asked for a text: {stream.reason}")
    reason = f"the serving engine does not say it: {stream.reason}"
    return replace(outcome, state=VerbatimState.TEXT_FALLBACK, reason=reason, record=None, vectors=0, margin=None)
