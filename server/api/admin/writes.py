"""How far a write has come: waits until edits are compressed (`ready`) and on every live replica (`active`)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from incomes_server.api.admin.context import AdminContext, Wait
from incomes_server.api.admin.schemas import WaitFor
from incomes_server.api.http.metrics import ACTIVATION_S, QUEUE_OVERFLOWS
from incomes_server.edits.model import Edit, EditStatus, NewEdit
from incomes_server.store.replica_table import ReplicaProgress

from incomes_plugin.errors import (
    CompressionFailed,
    ConflictingEdit,
    EditSetNotFound,
    IncomesError,
    Overloaded,
    PoolFull,
    QueueFull,
    Unavailable,
)
from incomes_plugin.gist.edit import CaptureJob
from incomes_plugin.telemetry import span, traceparent

AT_ONCE = 256
"""Edits that are asked after at once: an answer that is put together of thousands would hold the event loop up."""


@asynccontextmanager
async def admitted(
    context: AdminContext,
    project: str,
    request_id: str,
    news: Sequence[NewEdit],
    *,
    replaces: int = 0,
    queued: bool = False,
) -> AsyncIterator[None]:
    """Check that the queue has a place, and reserve room in the pool while the block stores the edits. A request that
    was done before and is sent again needs neither.

    Args:
        replaces: tokens of the edit that the new one takes the place of.
        queued: the queue was asked for a place already.

    Raises:
        QuotaExceeded, PoolFull, QueueFull: the edits would have to wait for others to go.
    """
    async with AsyncExitStack() as stack:
        try:
            if not queued:
                await context.queue.admit(len(news), interactive=True)
            room = context.room.reserve(project, [len(new.token_ids) for new in news], replaces=replaces)
            await stack.enter_async_context(room)
        except Overloaded:
            if not await context.store.has_request(project, request_id):
                raise
        yield


async def store_edits(
    context: AdminContext, project: str, edit_set: str, news: Sequence[NewEdit], request_id: str
) -> list[Edit]:
    """Store edits durably. The project's default set is made with the first of them.

    Raises:
        EditSetNotFound, EditConflict: nothing is stored.
    """
    try:
        return await context.store.add_edits(project, edit_set, news, request_id=request_id)
    except EditSetNotFound:
        if edit_set != context.settings.default_edit_set:
            raise
    await context.store.ensure_edit_set(project, edit_set)
    return await context.store.add_edits(project, edit_set, news, request_id=request_id)


async def submit(context: AdminContext, edits: Sequence[Edit], news: Sequence[NewEdit], *, interactive: bool) -> None:
    """Queue what is still pending; a repeated request finds its edits beyond that.

    The edits are durable and were admitted: should the queue have filled up since, its sweep of the store finds them.
    """
    jobs = [
        CaptureJob(edit.id, edit.version, new.token_ids, traceparent(), edit.compared_in, edit.kind)
        for edit, new in zip(edits, news, strict=True)
        if edit.status is EditStatus.PENDING
    ]
    try:
        await context.queue.submit(jobs, interactive=interactive)
    except QueueFull:
        QUEUE_OVERFLOWS.inc(len(jobs))


async def wait_for_edits(
    context: AdminContext, project: str, edits: Sequence[Edit], wait: Wait
) -> tuple[list[Edit], WaitFor]:
    """Wait for added edits.

    Returns:
        the edits as they are now, and the state that all of them have reached (failed ones left out).
    """
    if wait.target is WaitFor.ACCEPTED or not edits:
        return list(edits), WaitFor.ACCEPTED
    now: list[Edit] = []
    active = wait.target is WaitFor.ACTIVE
    for start in range(0, len(edits), AT_ONCE):
        ids = [edit.id for edit in edits[start : start + AT_ONCE]]
        if wait.target is WaitFor.READY:
            now += await context.store.wait_status(project, ids, timeout_s=wait.left_s)
            continue
        with span("edits.ack"):
            some, progress = await context.store.wait_edits(project, ids, timeout_s=wait.left_s)
        now += some
        active &= bool(progress) and all([has_reached(each) for each in progress.values()])
    if any(e.status in {EditStatus.PENDING, EditStatus.COMPRESSING} for e in now):
        return now, WaitFor.ACCEPTED
    if not active or any(e.held for e in now):
        return now, WaitFor.READY
    ACTIVATION_S.observe(wait.elapsed_s)
    return now, WaitFor.ACTIVE


async def is_active(context: AdminContext, edit_set: str, version: int, wait: Wait) -> bool:
    """Wait for the replicas: True when every live one, and at least one, has acknowledged `version` in time.

    Raises:
        PoolFull, Unavailable: a replica refuses the change; what was written stays, and is tried again.
    """
    with span("edits.ack"):
        progress = await context.store.wait_active(edit_set, version, timeout_s=wait.left_s)
    return has_reached(progress)


def has_reached(progress: ReplicaProgress) -> bool:
    """Whether every live replica has a change.

    Raises:
        PoolFull, Unavailable: a replica refuses it.
    """
    if not progress.reached and progress.nacks:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in progress.nacks.items())
        kind = PoolFull if PoolFull.__name__ in reasons else Unavailable
        raise kind(f"the change is stored, but a replica cannot apply it yet: {reasons}")
    return progress.reached


def raise_if_failed(edit: Edit, wait: Wait) -> None:
    """Raise if an edit failed, so that a waiting caller does not take it for one that is late.

    Raises:
        CompressionFailed, ConflictingEdit: names the edit and the reason.
    """
    failure = failure_of(edit)
    if wait.target is not WaitFor.ACCEPTED and failure is not None:
        raise failure


def failure_of(edit: Edit) -> IncomesError | None:
    """Why an edit will never be ready."""
    if edit.status is EditStatus.FAILED:
        return CompressionFailed(f"{edit.id} could not be compressed: {edit.status_reason}", param="text")
    if edit.status is EditStatus.CONFLICTED:
        return ConflictingEdit(f"{edit.id} is refused: {edit.status_reason}", param="text")
    return None


def status_code(wait: Wait, reached: WaitFor, done: int) -> int:
    """202 while the write is on its way, `done` when it has reached what the caller waits for."""
    order = list(WaitFor)
    return done if wait.target is not WaitFor.ACCEPTED and order.index(reached) >= order.index(wait.target) else 202
