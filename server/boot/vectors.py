"""Vectors of verbatim edits at the start: which ones say nothing here, and the loop that makes new ones."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import asdict
from functools import partial

from incomes_server.api.admin.context import AdminContext
from incomes_server.settings import Settings

logger = logging.getLogger("incomes.verbatim")

AGAIN_S = 30.0


async def requeue_vectors(settings: Settings, context: AdminContext) -> int:
    """Vectors that were made with another model, tokenizer or template are stale; how many edits had some. They are
    made again, from where they are. What is served is only looked at where there are vectors, or a capacity to check.

    Raises:
        InvalidValue: `verbatim_capacity` is another model's.
    """
    measured = settings.verbatim_capacity if settings.verbatim_vectors else None
    if context.recaller is None or (measured is None and not await context.store.verbatim_origins()):
        return 0
    origin = (await context.recaller.frame()).origin
    if measured is not None:
        from incomes_plugin.lab.verbatim.planner import VectorCapacity

        VectorCapacity.read(measured, origin.model, VectorCapacity.rho)
    return await context.store.requeue_verbatims(json.dumps(asdict(origin)))


async def make_vectors(context: AdminContext) -> None:
    """Until cancelled, with a frozen copy of the base in a process of its own while there is something to do. Nothing
    that goes wrong here ends serving: the stored texts are there."""
    while True:
        try:
            await _make_vectors(context)
        except Exception:
            logger.exception("making vectors broke off and begins again in %.0f s", AGAIN_S)
        await asyncio.sleep(AGAIN_S)


async def _make_vectors(context: AdminContext) -> None:
    from incomes_server.compression.cramming import CramLimits
    from incomes_server.compression.verbatim_worker import run_verbatims, start_cram_actor

    settings, recaller = context.settings, context.recaller
    assert recaller is not None
    frame = await recaller.frame()
    dtype, texts = str(frame.dtype).removeprefix("torch."), settings.verbatim_texts
    limits = CramLimits(
        frame.folder, dtype, settings.verbatim_threads, texts, settings.verbatim_steps, settings.verbatim_capacity
    )
    start = partial(start_cram_actor, limits)
    await run_verbatims(context.store, recaller, start, name=settings.engine_name, texts=texts)
