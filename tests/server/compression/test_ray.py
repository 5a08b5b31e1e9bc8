"""Scheduler and workers over real Ray: retries, terminal failures, back pressure, restarts."""

import asyncio

import pytest
from incomes_server.compression.client import CompressionClient
from incomes_server.compression.model import LeaseDone, QueueLimits
from incomes_server.compression.worker import run_worker
from incomes_server.edits import EditStatus, NewEdit

from incomes_plugin.errors import CompressionFailed, EngineLost, QueueFull
from incomes_plugin.gist.edit import CaptureJob
from tests.server.gists import outcome_of

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def limits():
    return QueueLimits(interactive=10, bulk=20, lease_s=1.0, sweep_s=0.2)


async def add(store, project, *texts, request_id="add"):
    await store.ensure_edit_set(project, "default")
    return await store.add_edits(project, "default", [NewEdit(text, (1, 2)) for text in texts], request_id=request_id)


def jobs_of(edits):
    return [CaptureJob(edit.id, edit.version, (1, 2)) for edit in edits]


async def compress(jobs):
    return [outcome_of(job.edit_id, job.version) for job in jobs]


async def hand_in(stack, lease):
    """What a worker does with its lease."""
    made = await compress(lease.jobs)
    await stack.store.record_outcomes(made)
    done = LeaseDone(lease.id, tuple(captured.edit for captured in made), {})
    await stack.compression.lease("hands in", 1, timeout_s=0, done=done)


async def settled(store, edits):
    return await store.wait_status(edits[0].project, [edit.id for edit in edits], timeout_s=60)


async def test_a_poisoned_edit_fails_with_its_reason_and_spoils_no_other(stack, project):
    edits = await add(stack.store, project, "fine", "poison", "fine too")
    calls = []

    async def picky(jobs):
        calls.append(len(jobs))
        if edits[1].id in {job.edit_id for job in jobs}:
            raise CompressionFailed("this text breaks the model")
        return await compress(jobs)

    worker = asyncio.create_task(run_worker(stack.compression, stack.store, picky, name="w", batch=8))
    await stack.compression.submit(jobs_of(edits), interactive=True)
    done = await settled(stack.store, edits)
    worker.cancel()
    assert [edit.status for edit in done] == [EditStatus.READY, EditStatus.FAILED, EditStatus.READY]
    assert done[1].status_reason == "gave up after 3 attempts: CompressionFailed: this text breaks the model"
    assert (await stack.store.get_edit_set(project, "default")).snapshot.num_edits == 2
    assert calls.count(1) >= 3


async def test_a_lost_engine_costs_no_attempt(stack, project):
    edits = await add(stack.store, project, "a")
    calls = 0

    async def away(jobs):
        nonlocal calls
        calls += 1
        if calls <= 5:
            raise EngineLost("starting again")
        return await compress(jobs)

    worker = asyncio.create_task(run_worker(stack.compression, stack.store, away, name="w", batch=8))
    await stack.compression.submit(jobs_of(edits), interactive=True)
    assert (await settled(stack.store, edits))[0].status is EditStatus.READY
    worker.cancel()


async def test_a_full_queue_says_so_and_takes_nothing(stack):
    jobs = [CaptureJob(f"edit_{i}", 1, (1,)) for i in range(30)]
    with pytest.raises(QueueFull) as error:
        await stack.compression.submit(jobs, interactive=False)
    assert type(error.value) is QueueFull
    assert error.value.retry_after_s >= 1
    assert (await stack.compression.stats()).bulk == 0
    await stack.compression.admit(20, interactive=False)
    with pytest.raises(QueueFull):
        await stack.compression.admit(21, interactive=False)


async def test_pending_edits_that_nobody_submitted_are_found(stack, project):
    """More of them than the queue holds: the rest waits in the store, not in memory."""
    edits = await add(stack.store, project, *map(str, range(50)))
    worker = asyncio.create_task(run_worker(stack.compression, stack.store, compress, name="w", batch=8))
    assert {edit.status for edit in await settled(stack.store, edits)} == {EditStatus.READY}
    worker.cancel()


async def test_a_vanished_worker_and_a_killed_scheduler_lose_nothing(stack, project):
    edits = await add(stack.store, project, "a", "b", "c")
    await stack.compression.submit(jobs_of(edits), interactive=True)
    lost = await stack.compression.lease("vanishes", 2, timeout_s=5)
    assert len(lost.jobs) == 2
    await stack.kill(stack.compression)
    worker = asyncio.create_task(run_worker(stack.compression, stack.store, compress, name="w", batch=8))
    assert {edit.status for edit in await settled(stack.store, edits)} == {EditStatus.READY}
    version = (await stack.store.get_edit_set(project, "default")).snapshot.version
    await hand_in(stack, lost)
    assert (await stack.store.get_edit_set(project, "default")).snapshot.version == version, "late work changes nothing"
    worker.cancel()


async def test_an_edit_retired_while_it_is_compressed_stays_out(stack, project):
    (edit,) = await add(stack.store, project, "a")
    await stack.compression.submit(jobs_of([edit]), interactive=True)
    lease = await stack.compression.lease("w", 1, timeout_s=5)
    await stack.store.retire_edit(project, edit.id, request_id="r")
    await hand_in(stack, lease)
    assert (await stack.store.get_edit(project, edit.id)).status is EditStatus.RETIRED
    assert (await stack.store.get_edit_set(project, "default")).snapshot.num_edits == 0
    assert (await stack.compression.stats()).leased == 0


async def test_a_full_queue_is_known_before_the_next_edit_is_stored(stack):
    """The room is counted down at the client; when it is used up, or a submission was refused, the queue is asked."""
    first = [CaptureJob(f"edit_first_{i}", 1, (1,)) for i in range(4)]
    await stack.compression.admit(4, interactive=True)
    await stack.compression.submit(first, interactive=True)
    other = CompressionClient(stack.compression._actor)
    await other.submit([CaptureJob(f"edit_other_{i}", 1, (1,)) for i in range(6)], interactive=True)
    await stack.compression.admit(6, interactive=True)  # it had room for six when it last answered
    with pytest.raises(QueueFull):
        await stack.compression.submit([CaptureJob("edit_late", 1, (1,))], interactive=True)
    with pytest.raises(QueueFull):
        await stack.compression.admit(1, interactive=True)
    lease = await stack.compression.lease("w", 10, timeout_s=0)
    assert len(lease.jobs) == 10
    await stack.compression.admit(10, interactive=True)
    done = LeaseDone(lease.id, tuple(job.edit for job in lease.jobs), {})
    assert (await stack.compression.lease("w", 1, timeout_s=0, done=done)).jobs == ()
