"""Vectors are made by a process of its own; the serving engine has the last word; a kill loses nothing."""

import asyncio
import json
import os
import signal
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from types import SimpleNamespace

import pytest
from incomes_server.compression import verbatim_worker
from incomes_server.compression.cramming import CramActor, CramLimits
from incomes_server.compression.verbatim_worker import run_verbatims, start_cram_actor
from incomes_server.edits import NewEdit, RecallKeys, VerbatimState

from incomes_plugin.errors import NotReady
from incomes_plugin.lab.verbatim.decode import greedy
from incomes_plugin.lab.verbatim.frame import RecallFrame
from incomes_plugin.lab.verbatim.frozen import FrozenModel
from incomes_plugin.lab.verbatim.serving import VECTORS, Recaller, RecallStream
from tests.eventually import eventually
from tests.tiny_model import write_tiny_model

pytestmark = pytest.mark.ray

TEXTS = ("valve 7", "x=3;y", "no<eos>end")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return FrozenModel(write_tiny_model(tmp_path_factory.mktemp("tiny")))


@pytest.fixture
def recaller(model):
    """The engine: the model itself, token by token."""

    async def say(template, vectors, num_tokens):
        yield await asyncio.to_thread(greedy, model, vectors, num_tokens + 1)

    return Recaller(lambda: RecallFrame.of(model.folder, model.dtype), say)


@pytest.fixture(scope="module")
def capacity(model, tmp_path_factory):
    """As many vectors as the tiny model needs."""
    file = tmp_path_factory.mktemp("capacity") / "verbatim-capacity.json"
    calibration = {"nats_per_vector": 30.0, "efficiency": {"1": 1.0}}
    file.write_text(json.dumps({"calibration": calibration, "origin": asdict(model.origin)}))
    return file


@asynccontextmanager
async def worker(stack, model, recaller, capacity, begin=start_cram_actor):
    """It runs inside the block; its processes, as they were started."""
    started = []

    def start():
        started.append(begin(CramLimits(model.folder, "float32", texts=4, steps=300, capacity=capacity)))
        return started[-1]

    task = asyncio.create_task(run_verbatims(stack.store, recaller, start, name="one", texts=4))
    try:
        yield started
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def add(store, project, *texts):
    await store.ensure_edit_set(project, "default")
    new = [NewEdit(text, (1, 2), found_by=RecallKeys(text[:3])) for text in texts]
    return await store.add_edits(project, "default", new, request_id="add")


async def settled(store, project, edits):
    busy = {VerbatimState.PLANNING, VerbatimState.OPTIMISING, VerbatimState.STALE}
    found = []

    async def done():
        found[:] = [await store.get_verbatim(project, edit.id, 1) for edit in edits]
        return not any(each.state in busy for each in found)

    await eventually(done, within_s=300)
    return found


async def test_texts_get_vectors_that_the_engine_says(stack, project, model, recaller, capacity):
    edits = await add(stack.store, project, *TEXTS)
    async with worker(stack, model, recaller, capacity):
        found = await settled(stack.store, project, edits)
    assert [each.state for each in found] == ["verified", "verified", "text_fallback"]
    assert "special token" in found[2].reason
    for each in found[:2]:
        stream = RecallStream(recaller, each.text, each.record, None)
        assert "".join([piece async for piece in stream.pieces()]) == each.text
        assert stream.source == VECTORS
        broken = bytearray(each.record)
        broken[len(broken) // 2] ^= 1
        stream = RecallStream(recaller, each.text, bytes(broken), None)
        assert "".join([piece async for piece in stream.pieces()]) == each.text
        assert (stream.source, stream.reason) == ("stored_text", "verbatim_damaged")


async def test_what_the_engine_does_not_say_is_not_verified(stack, project, model, capacity):
    async def say(template, vectors, num_tokens):
        yield [5] * (num_tokens + 1)

    edits = await add(stack.store, project, TEXTS[0])
    other = Recaller(lambda: RecallFrame.of(model.folder, model.dtype), say)
    async with worker(stack, model, other, capacity):
        (found,) = await settled(stack.store, project, edits)
    assert (found.state, found.record) == (VerbatimState.TEXT_FALLBACK, None)
    assert found.reason == "the serving engine does not say it: verbatim_mismatch"


async def test_a_killed_process_loses_no_text(stack, project, model, recaller, capacity):
    edits = await add(stack.store, project, *TEXTS[:2])
    async with worker(stack, model, recaller, capacity) as started:
        await eventually(lambda: started)
        pid = await started[0].__ray_call__.remote(lambda _: os.getpid())
        assert os.getpriority(os.PRIO_PROCESS, pid) >= 10, "what serves comes first"
        os.kill(pid, signal.SIGKILL)
        found = await settled(stack.store, project, edits)
    assert [each.state for each in found] == ["verified", "verified"]


async def test_an_erased_text_leaves_the_worker(stack, project):
    """Its outcome comes too late, and is not kept."""
    edits = await add(stack.store, project, *TEXTS[:2])
    lease = await stack.store.lease_verbatims("slow", (), 9, lease_s=60, origin="{}")
    assert {job.edit for job in lease.jobs} == {(edit.id, 1) for edit in edits}
    await stack.store.erase_edit(project, edits[0].id, request_id="erase")
    held = await stack.store.lease_verbatims("slow", [job.edit for job in lease.jobs], 0, lease_s=60, origin="{}")
    assert held.held == ((edits[1].id, 1),)


class Stumbling:
    """A store that does not answer when it is first asked to keep something."""

    def __init__(self, store):
        self._store, self.failed = store, 0

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def record_verbatims(self, worker, outcomes):
        if not self.failed:
            self.failed += 1
            raise NotReady("the database restarts")
        return await self._store.record_verbatims(worker, outcomes)


async def test_what_was_made_while_the_store_was_away_is_kept(stack, project, model, recaller, capacity):
    edits = await add(stack.store, project, TEXTS[0])
    store = Stumbling(stack.store)
    async with worker(SimpleNamespace(store=store), model, recaller, capacity) as started:
        (found,) = await settled(stack.store, project, edits)
    assert (found.state, store.failed, len(started)) == (VerbatimState.VERIFIED, 1, 1)
    shown = await stack.store.get_edit(project, edits[0].id)
    assert shown.verbatim.steps > 0


def begun(actor, *more):
    """Starts such an actor."""
    import ray

    return lambda limits: ray.remote(actor).options(num_cpus=0, max_restarts=0).remote(limits, *more)


async def test_a_text_that_ends_every_process_takes_no_others_with_it(
    stack, project, model, recaller, capacity, monkeypatch
):
    monkeypatch.setattr(verbatim_worker, "POLL_S", 0.1)
    poison = "poison"

    class Fragile(CramActor):
        def work(self, held, jobs, budget_s):
            if any(job.text == poison for job in jobs):
                os._exit(1)
            return super().work(held, jobs, budget_s)

    edits = await add(stack.store, project, TEXTS[0], poison, TEXTS[1])
    async with worker(stack, model, recaller, capacity, begun(Fragile)):
        found = await settled(stack.store, project, edits)
    assert [each.state for each in found] == ["verified", "failed", "verified"]
    assert found[1].reason == "no worker finished it in 3 attempts"


async def test_a_pass_that_is_longer_than_a_lease_keeps_its_texts(
    stack, project, model, recaller, capacity, monkeypatch, tmp_path
):
    monkeypatch.setattr(verbatim_worker, "RENEW_S", 0.1)

    class Slow(CramActor):
        def __init__(self, limits, goes_on):
            super().__init__(limits)
            self._goes_on = goes_on

        def work(self, held, jobs, budget_s):
            while jobs and not self._goes_on.exists():
                time.sleep(0.05)
            return super().work(held, jobs, budget_s)

    (edit,) = await add(stack.store, project, TEXTS[0])
    store, goes_on = Renewed(stack.store), tmp_path / "goes on"
    async with worker(SimpleNamespace(store=store), model, recaller, capacity, begun(Slow, goes_on)):
        await eventually(lambda: len(store.renewed) > 2, within_s=300)
        goes_on.touch()
        (found,) = await settled(stack.store, project, [edit])
    assert found.state is VerbatimState.VERIFIED
    assert all((edit.id, 1) in held for held in store.renewed[:3])  # other tests may have left texts to the worker


class Renewed:
    """A store that tells which leases were renewed, and nothing more."""

    def __init__(self, store):
        self._store, self.renewed = store, []

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def lease_verbatims(self, worker, held, limit, **more):
        lease = await self._store.lease_verbatims(worker, held, limit, **more)
        if limit == 0:
            self.renewed.append(lease.held)
        return lease
