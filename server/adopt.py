"""Gists of the model that the served one was transplanted from: kept where the edit's tokens have the same rows.

Called at boot, before gists of other models go back to the queue. Some are compressed again first and compared; if one
differs, none is kept, and all of them are made anew.
"""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING

from incomes_server.edits import AdoptedGist, ReadyGist
from incomes_server.store.client import StoreClient

from incomes_plugin.gist import Gist, dump_gists, load_gists
from incomes_plugin.transplant.lineage import Lineage

if TYPE_CHECKING:
    from incomes_plugin.vllm.engine import EditEngine

logger = logging.getLogger(__name__)

PAGE = 500
SAMPLE = 16
"""Gists that are compressed again to be compared."""
TOLERANCE = 0.02
"""Of a gist's length: one made alone and one made among others differ by what bfloat16 rounds."""
Encode = Callable[[str], tuple[int, ...]]


async def adopt_gists(store: StoreClient, engine: EditEngine, lineage: Lineage, encode: Encode) -> int:
    """Put the base's gists that are this model's, too, under its fingerprint; returns how many."""
    sample: list[tuple[ReadyGist, tuple[int, ...]]] = []
    rng, seen = random.Random(0), 0
    async for found in _same_tokens(store, lineage, encode):
        for pair in found:
            seen += 1
            place = len(sample) if len(sample) < SAMPLE else rng.randrange(seen)
            sample[place : place + 1] = [pair] if place < SAMPLE else sample[place : place + 1]
    if not sample or not await _same_numbers(engine, lineage, sample):
        return 0
    async for found in _same_tokens(store, lineage, encode):
        renamed = [_renamed(gist, ids, lineage.base, engine.fingerprint) for gist, ids in found]
        await store.adopt_gists(lineage.base, engine.fingerprint, renamed)
    return seen


async def _same_tokens(
    store: StoreClient, lineage: Lineage, encode: Encode
) -> AsyncIterator[list[tuple[ReadyGist, tuple[int, ...]]]]:
    """Page by page, the base's gists whose edits are the same tokens here, with the ids they have here."""
    after = 0
    while page := await store.ready_gists(lineage.base, after, PAGE):
        after = page[-1].seq
        spelled = ((gist, encode(gist.text)) for gist in page)
        yield [(gist, ids) for gist, ids in spelled if lineage.same_tokens(ids, gist.token_ids)]


async def _same_numbers(
    engine: EditEngine, lineage: Lineage, sample: Sequence[tuple[ReadyGist, tuple[int, ...]]]
) -> bool:
    from incomes_plugin.vllm.compressor import CaptureJob

    made = await engine.capture([CaptureJob(gist.edit_id, gist.version, ids) for gist, ids in sample])
    for (gist, _), captured in zip(sample, made, strict=True):
        (stored,) = load_gists(gist.blob, lineage.base)
        if captured.blob is None or not _close(stored, *load_gists(captured.blob, engine.fingerprint)):
            reason = captured.error or "its numbers are others"
            logger.warning("edit %s of model %s is not this model's: %s", gist.edit_id, lineage.base, reason)
            return False
    return True


def _close(one: Gist, other: Gist) -> bool:
    pairs = ((one.keys, other.keys), (one.values, other.values))
    return all(
        a.shape == b.shape and float((a - b).float().norm()) <= TOLERANCE * float(a.float().norm()) for a, b in pairs
    )


def _renamed(gist: ReadyGist, token_ids: tuple[int, ...], base: str, fingerprint: str) -> AdoptedGist:
    blob = dump_gists(load_gists(gist.blob, base), fingerprint)
    return AdoptedGist(gist.edit_id, gist.version, token_ids, blob)
