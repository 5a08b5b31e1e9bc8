"""Joins the engine to the store: its captures answer the compression queue, its pool follows the edit sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from incomes_server.compression.worker import Compress
from incomes_server.edits.model import CompressionJob, CompressionOutcome, Delta
from incomes_server.replicas.sync import Apply

from incomes_plugin.pool.snapshot import SnapshotDelta, SnapshotRef

if TYPE_CHECKING:
    from incomes_plugin.vllm.engine import EditEngine


def compress_with(engine: EditEngine) -> Compress:
    """The worker's `compress`: one prefill per edit on the serving engine."""
    from incomes_plugin.vllm.engine import CaptureJob

    async def compress(jobs: Sequence[CompressionJob]) -> list[CompressionOutcome]:
        captured = await engine.capture([CaptureJob(j.edit_id, j.version, j.token_ids) for j in jobs])
        return [CompressionOutcome(c.edit_id, c.version, c.blob, c.error) for c in captured]

    return compress


def apply_to(engine: EditEngine) -> Apply:
    """The replica's `apply`: one delta of the store is one commit of the pool; a deleted set leaves it."""

    async def apply(delta: Delta) -> None:
        if delta.deleted:
            return await engine.drop(delta.edit_set)
        await engine.commit(snapshot_delta(delta, engine.current(delta.edit_set)))

    return apply


def snapshot_delta(delta: Delta, current: SnapshotRef | None) -> SnapshotDelta:
    """The engine's form of a store delta that starts from what the engine has."""
    return SnapshotDelta(
        base=current.id if current else None,
        snapshot=SnapshotRef(delta.edit_set, delta.version, delta.digest, delta.num_edits),
        added=tuple(blob for _, _, blob in delta.added),
        removed=delta.removed,
        ages=delta.ages,
    )
