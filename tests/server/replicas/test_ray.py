"""Edits travel over real Ray: store -> scheduler -> worker -> store -> replicas -> acknowledged."""

import asyncio
import os
import signal
import statistics
import time
from contextlib import asynccontextmanager

import pytest
from incomes_server.compression.worker import run_worker
from incomes_server.edits import NewEdit
from incomes_server.replicas.sync import run_replica

from incomes_plugin.errors import PoolFull
from incomes_plugin.gist.edit import CaptureJob
from incomes_plugin.pool.snapshot import EMPTY_DIGEST, add_to_digest
from tests.server.gists import keys_of, outcome_of

pytestmark = pytest.mark.ray


class Engine:
    """Holds what a replica applied, and checks every delta as a real pool does."""

    def __init__(self, store, name):
        self.name = name
        self.gists = {}
        self.heads = {}
        self.full = False
        self.caught_up = asyncio.Event()
        self.lost = asyncio.get_running_loop().create_future()
        loops = run_replica(store, self.apply, name=name, on_caught_up=self.caught_up.set, on_lost=self.lost.set_result)
        self.task = asyncio.create_task(loops)

    async def apply(self, delta):
        if self.full:
            raise PoolFull("no free page")
        after = delta.snapshot
        assert self.heads.get(after.edit_set) == delta.base
        gists = dict(self.gists.get(after.edit_set, {}))
        for pair in delta.removed:
            del gists[pair]
        gists |= dict(zip(keys_of(delta.added), delta.added, strict=True))
        digest = EMPTY_DIGEST
        for pair in gists:
            digest = add_to_digest(digest, *pair)
        assert (digest, len(gists)) == (after.digest, after.num_edits)
        self.gists[after.edit_set], self.heads[after.edit_set] = gists, after.id

    async def stop(self):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def compress(jobs):
    return [outcome_of(job.edit_id, job.version, num_tokens=64) for job in jobs]


async def add_active(stack, project, request_id, *, timeout_s=30):
    """One edit, from the text to every replica; returns it and the progress."""
    new = [NewEdit("text", (1, 2))]
    (edit,) = await stack.store.add_edits(project, "default", new, request_id=request_id)
    await stack.compression.submit([CaptureJob(edit.id, 1, (1, 2))], interactive=True)
    (edit,) = await stack.store.wait_status(project, [edit.id], timeout_s=30)
    return edit, await stack.store.wait_active(edit.edit_set, edit.set_version, timeout_s=timeout_s)


@asynccontextmanager
async def working(stack, project):
    """A worker, and engines to be stopped at the end."""
    await stack.store.ensure_edit_set(project, "default")
    engines = []
    task = asyncio.create_task(run_worker(stack.compression, stack.store, compress, name="w", batch=64))
    try:
        yield engines
    finally:
        task.cancel()
        await asyncio.gather(task, *(engine.stop() for engine in engines), return_exceptions=True)


async def test_an_edit_is_active_when_every_replica_has_it(stack, project):
    async with working(stack, project) as engines:
        engines += [Engine(stack.store, "one"), Engine(stack.store, "two")]
        await asyncio.gather(*(engine.caught_up.wait() for engine in engines))
        edit, progress = await add_active(stack, project, "1")
        assert (progress.reached, progress.live) == (True, 2)
        assert all((edit.id, 1) in engine.gists[edit.edit_set] for engine in engines)

        engines[1].full = True
        other, progress = await add_active(stack, project, "2", timeout_s=1)
        assert (progress.reached, progress.acked) == (False, 1)
        assert progress.nacks == {"two": "PoolFull: no free page"}
        engines[1].full = False
        assert (await stack.store.wait_active(edit.edit_set, other.set_version, timeout_s=30)).reached

        await engines[1].stop()
        assert [replica.name for replica in await stack.store.replicas()] == ["one"]
        retired = await stack.store.retire_edit(project, edit.id, request_id="retire")
        assert (await stack.store.wait_active(edit.edit_set, retired.set_version, timeout_s=30)).live == 1
        assert (edit.id, 1) not in engines[0].gists[edit.edit_set]


async def test_replicas_follow_through_a_killed_store_and_one_may_come_late(stack, project):
    async with working(stack, project) as engines:
        engines.append(Engine(stack.store, "first"))
        await engines[0].caught_up.wait()
        new = [NewEdit(str(number), (1, 2)) for number in range(500)]
        edits = await stack.store.add_edits(project, "default", new, request_id="bulk")
        await stack.kill(stack.store)
        done = await stack.store.wait_status(project, [edit.id for edit in edits], timeout_s=60)
        head = await stack.store.get_edit_set(project, "default")
        assert head.snapshot.num_edits == 500 == len(done)
        assert (await stack.store.wait_active(head.id, head.snapshot.version, timeout_s=30)).reached
        engines.append(Engine(stack.store, "late"))
        await asyncio.wait_for(engines[1].caught_up.wait(), 30)
        assert engines[1].gists[head.id] == engines[0].gists[head.id]


async def test_a_replica_out_of_reach_stops_serving_and_comes_back(stack, project, monkeypatch):
    """The store is frozen for longer than the lease: others may acknowledge edits that this replica lacks."""
    monkeypatch.setattr("incomes_server.replicas.sync.LEASE_S", 1.0)
    monkeypatch.setattr("incomes_server.replicas.sync.WAIT_S", 0.2)
    async with working(stack, project) as engines:
        engines.append(Engine(stack.store, "cut-off"))
        await engines[0].caught_up.wait()
        engines[0].caught_up.clear()
        pid = await stack.pid_of(stack.store)
        os.kill(pid, signal.SIGSTOP)
        try:
            reason = await asyncio.wait_for(engines[0].lost, 30)
            assert not engines[0].caught_up.is_set()
        finally:
            os.kill(pid, signal.SIGCONT)
        assert "out of reach" in reason
        await asyncio.wait_for(engines[0].caught_up.wait(), 30)
        _, progress = await add_active(stack, project, "after")
        assert progress.reached


async def test_activation_is_quick(stack, project, figure):
    """Shows the time from the request to the acknowledgement of all replicas; the model's own time is left out."""
    async with working(stack, project) as engines:
        engines += [Engine(stack.store, "one"), Engine(stack.store, "two")]
        await asyncio.gather(*(engine.caught_up.wait() for engine in engines))
        times_ms = []
        for number in range(40):
            start_s = time.monotonic()
            _, progress = await add_active(stack, project, str(number))
            times_ms.append(1000 * (time.monotonic() - start_s))
            assert progress.reached
    p95_ms = statistics.quantiles(times_ms, n=20)[-1]
    figure(f"add to active on 2 replicas: p50 {statistics.median(times_ms):.0f} ms, p95 {p95_ms:.0f} ms")
