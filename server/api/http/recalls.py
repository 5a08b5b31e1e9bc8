"""After a text was said from vectors, or should have been: what went wrong is counted, and mended."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from incomes_server.api.http.metrics import VERBATIM_MISMATCHES
from incomes_server.store.client import StoreClient

from incomes_plugin.errors import IncomesError, VerbatimDamaged, VerbatimMismatch, VerbatimStale
from incomes_plugin.gist.edit import EditKey

if TYPE_CHECKING:
    from incomes_plugin.lab.verbatim.serving import RecallStream

logger = logging.getLogger("incomes.verbatim")

_BROKEN = {error.code: error.__doc__ or "" for error in (VerbatimDamaged, VerbatimMismatch, VerbatimStale)}


async def settle_recall(store: StoreClient, edit: EditKey, stream: RecallStream) -> None:
    """Call it when the pieces are out: vectors that did not say the text are counted and made again. The caller has the
    text anyway, so nothing is raised."""
    if stream.reason not in _BROKEN:
        return
    VERBATIM_MISMATCHES.inc()
    logger.warning("vectors of %s version %d: %s", *edit, stream.reason)
    try:
        await store.refuse_verbatim(edit, f"{stream.reason}: {_BROKEN[stream.reason]}")
    except IncomesError as error:
        logger.warning("vectors of %s version %d stay as they are: %s", *edit, error.message)
