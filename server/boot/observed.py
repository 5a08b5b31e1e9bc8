"""What the engine does for edits, timed for the metrics and traced under the requests that wrote them.

worker ──capture──► `edits.compress` in the trace of each write ──► engine
replica ──commit──► `edits.commit` in the traces of the writes whose gists the delta adds ──► engine
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from incomes_server.api.http.metrics import COMMIT_S, COMPARISON_S, COMPRESSION_S

from incomes_plugin.gist.edit import Captured, CaptureJob
from incomes_plugin.pool.snapshot import SnapshotDelta
from incomes_plugin.telemetry import spans

if TYPE_CHECKING:
    from incomes_plugin.vllm.engine import EditEngine

REMEMBERED = 4096
"""Traced gists on their way through the store; of more, the oldest lose their commit span."""


class ObservedEngine:
    """Capture and commit of an engine. A delta does not say who wrote its edits: traced gists are known by content."""

    def __init__(self, engine: EditEngine) -> None:
        self._engine = engine
        self._writers: OrderedDict[bytes, str] = OrderedDict()

    async def capture(self, jobs: Sequence[CaptureJob]) -> list[Captured]:
        """As `EditEngine.capture`."""
        start_s = time.monotonic()
        with spans("edits.compress", (job.traceparent for job in jobs), edits=len(jobs)):
            captured = await self._engine.capture(jobs)
        COMPRESSION_S.observe(time.monotonic() - start_s)
        for job, outcome in zip(jobs, captured, strict=True):
            if job.traceparent and outcome.blob is not None:
                self._writers[_content(outcome.blob)] = job.traceparent
        while len(self._writers) > REMEMBERED:
            self._writers.popitem(last=False)
        return captured

    async def compare(self, edit_set: str, new: Sequence[Captured], others: Sequence[bytes]) -> list[Captured]:
        """As `EditEngine.compare`."""
        start_s = time.monotonic()
        told = await self._engine.compare(edit_set, new, others)
        COMPARISON_S.observe(time.monotonic() - start_s)
        return told

    async def commit(self, delta: SnapshotDelta[bytes]) -> None:
        """As `EditEngine.commit`."""
        start_s = time.monotonic()
        known = [_content(blob) for blob in delta.added] if self._writers else []
        writers = [self._writers.get(content) for content in known]
        with spans("edits.commit", writers, version=delta.snapshot.version):
            await self._engine.commit(delta)
        for content in known:
            self._writers.pop(content, None)
        COMMIT_S.observe(time.monotonic() - start_s)


def _content(blob: bytes) -> bytes:
    return hashlib.blake2b(blob, digest_size=16).digest()
