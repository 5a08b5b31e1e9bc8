"""The scheduler's logic in this process, around a store in this process. Ray's part is in test_ray.py."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import pytest
from incomes_server.compression.client import CompressionClient
from incomes_server.compression.model import LeaseDone, QueueLimits
from incomes_server.compression.scheduler import SchedulerActor
from incomes_server.edits import EditStatus, NewEdit
from incomes_server.store.actor import EditStoreActor
from incomes_server.store.client import StoreClient

from incomes_plugin.errors import NotReady
from incomes_plugin.gist.edit import CaptureJob
from tests.server.gists import outcome_of

LIMITS = QueueLimits(sweep_s=0.05, max_attempts=2)


class Handle:
    """A Ray handle's face on an actor of this process. While it is `away`, every call fails as one of a lost actor;
    while it `hangs`, none returns."""

    def __init__(self, actor):
        self._actor, self.away, self.hangs = actor, False, False

    def __getattr__(self, method):
        async def called(*args, **kwargs):
            if self.away:
                raise NotReady("the actor is away")
            if self.hangs:
                await asyncio.Event().wait()
            return await getattr(self._actor, method)(*args, **kwargs)

        return SimpleNamespace(remote=called)


@pytest.fixture
def handle(database_url):
    return Handle(EditStoreActor(database_url))


@pytest.fixture
def store(handle):
    return StoreClient(handle)


@pytest.fixture
async def scheduler(store):
    actor = SchedulerActor("here", LIMITS)
    actor._store = store
    yield actor
    if actor._ticker:
        actor._ticker.cancel()


async def add(store, *texts):
    await store.ensure_edit_set("p", "default")
    return await store.add_edits("p", "default", [NewEdit(text, (1, 2)) for text in texts], request_id="add")


async def submitted(scheduler, store, *texts):
    edits = await add(store, *texts)
    await scheduler.submit([CaptureJob(edit.id, 1, (1, 2)) for edit in edits], interactive=True)
    return edits


def made(lease):
    return LeaseDone(lease.id, tuple(job.edit for job in lease.jobs), {})


def failed(lease, reason="broken"):
    return LeaseDone(lease.id, (), {job.edit: reason for job in lease.jobs})


async def test_the_next_lease_settles_the_last_one(scheduler, store):
    edits = await submitted(scheduler, store, "a", "b")
    first = await scheduler.lease("w", 1, 0, None)
    await store.record_outcomes([outcome_of(*job.edit) for job in first.jobs])
    second = await scheduler.lease("w", 1, 0, made(first))
    assert [job.edit_id for job in (*first.jobs, *second.jobs)] == [edit.id for edit in edits]
    stats = await scheduler.stats()
    assert (stats.leased, stats.completed, stats.interactive) == (1, 1, 0)


async def test_what_is_given_up_is_in_the_store_before_the_lease_is_dropped(scheduler, store, handle):
    """A store that is away costs no attempt: the jobs are tried again, and their edit fails when the store is back."""
    (edit,) = await submitted(scheduler, store, "poison")
    again = await scheduler.lease("w", 1, 0, failed(await scheduler.lease("w", 1, 0, None)))
    handle.away = True
    with pytest.raises(NotReady, match="away"):
        await scheduler.lease("w", 1, 0, failed(again))
    handle.away = False
    assert (await store.get_edit("p", edit.id)).status in {EditStatus.PENDING, EditStatus.COMPRESSING}
    last = await scheduler.lease("w", 1, 0, None)
    assert [job.edit_id for job in last.jobs] == [edit.id]
    assert (await scheduler.lease("w", 1, 0, failed(last, "its text breaks the model"))).jobs == ()
    (done,) = await store.wait_status("p", [edit.id], timeout_s=0)
    assert done.status is EditStatus.FAILED
    assert done.status_reason == "gave up after 2 attempts: its text breaks the model"
    assert (await scheduler.stats()).failed == 1


async def eventually(holds):
    """Wait until a condition holds; the test's timeout ends it."""
    while not await holds():
        await asyncio.sleep(0.01)


async def test_an_edit_whose_workers_vanish_fails_with_the_reason(scheduler, store):
    scheduler._queue.limits = replace(LIMITS, lease_s=0.3)
    (edit,) = await submitted(scheduler, store, "a")
    for worker in ("one", "two"):
        lease = await scheduler.lease(worker, 1, 60, None)
        assert [job.edit_id for job in lease.jobs] == [edit.id]
    (done,) = await store.wait_status("p", [edit.id], timeout_s=60)
    assert done.status is EditStatus.FAILED
    assert "no worker finished it within 0.3 s" in done.status_reason


async def test_sweeps_go_on_after_the_store_was_away(scheduler, store, handle, caplog):
    handle.away = True
    assert (await scheduler.stats()).bulk == 0  # the first call begins the sweeps

    async def swept():
        return "sweep failed, trying again" in caplog.text

    await eventually(swept)
    handle.away = False
    (edit,) = await add(store, "nobody submits this")
    lease = await scheduler.lease("w", 1, 60, None)
    assert [job.edit_id for job in lease.jobs] == [edit.id]


async def test_a_long_lease_is_shown_as_compressing(scheduler, store, handle, caplog):
    edits = await submitted(scheduler, store, "a", "b")
    first = await scheduler.lease("w", 1, 0, None)

    async def shown():
        return (await store.get_edit("p", edits[0].id)).status is EditStatus.COMPRESSING

    await eventually(shown)
    await store.record_outcomes([outcome_of(*job.edit) for job in first.jobs])
    second = await scheduler.lease("w", 1, 0, made(first))
    handle.away = True  # what only informs may fail

    async def said():
        return "could not mark 1 edits as compressing" in caplog.text

    await eventually(said)
    handle.away = False
    await store.record_outcomes([outcome_of(*job.edit) for job in second.jobs])
    assert (await store.get_edit("p", edits[1].id)).status is EditStatus.READY


async def test_a_workers_newer_call_ends_its_older_one(scheduler, store):
    older = asyncio.create_task(scheduler.lease("w", 1, 300, None))
    await asyncio.sleep(0)
    newer = asyncio.create_task(scheduler.lease("w", 1, 300, None))
    assert (await asyncio.wait_for(older, 60)).jobs == ()
    (edit,) = await submitted(scheduler, store, "a")
    lease = await asyncio.wait_for(newer, 60)
    assert [job.edit_id for job in lease.jobs] == [edit.id]
    await scheduler.release(lease.id)
    assert (await scheduler.stats()).interactive == 1


async def test_the_room_that_is_left_is_answered(scheduler):
    job = CaptureJob("edit_x", 1, (1,))
    assert await scheduler.admit(5, interactive=True) == LIMITS.interactive
    assert await scheduler.submit([job], interactive=True) == LIMITS.interactive - 1
    assert await scheduler.submit([job], interactive=False) == LIMITS.bulk


async def test_a_client_asks_again_before_the_next_edit_when_a_submission_came_to_nothing(scheduler):
    """Room that was known when the scheduler was lost must not let further edits be stored."""
    handle, job = Handle(scheduler), CaptureJob("edit_x", 1, (1,))
    client = CompressionClient(handle)
    await client.submit([job], interactive=True)
    handle.away = True
    await client.admit(1, interactive=True)  # known
    with pytest.raises(NotReady):
        await client.submit([job], interactive=True)
    with pytest.raises(NotReady):
        await client.admit(1, interactive=True)
    handle.away = False
    await client.admit(1, interactive=True)
    handle.hangs = True
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await client.submit([job], interactive=True)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await client.admit(1, interactive=True)
