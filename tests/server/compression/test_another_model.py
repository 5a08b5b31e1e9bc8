"""Workers of two models beside one another, as when one is exchanged for the other: no edit fails for that."""

import asyncio

from incomes_server.compression.client import CompressionClient
from incomes_server.compression.model import QueueLimits
from incomes_server.compression.scheduler import SchedulerActor
from incomes_server.compression.worker import run_worker
from incomes_server.edits import EditStatus, NewEdit
from incomes_server.store.actor import EditStoreActor
from incomes_server.store.client import StoreClient

from tests.eventually import eventually
from tests.server.gists import outcome_of
from tests.server.local import Local


async def test_a_worker_of_the_former_model_leaves_edits_to_others(database_url):
    limits = QueueLimits(sweep_s=0.1, max_attempts=2)
    actor, scheduler = EditStoreActor(database_url), SchedulerActor("local", limits)
    store, queue = StoreClient(Local(actor)), CompressionClient(Local(scheduler))
    scheduler._store = store
    tried, tasks = [], []

    def work(model):
        async def compress(jobs):
            tried.append(model)
            return [outcome_of(*job.edit, fingerprint=model) for job in jobs]

        tasks.append(asyncio.create_task(run_worker(queue, store, compress, name=model, batch=8)))

    await store.ensure_edit_set("p", "default")
    await store.requeue_stale("mf_new")
    edits = await store.add_edits("p", "default", [NewEdit(text, (1, 2)) for text in "abc"], request_id="1")
    ids = [edit.id for edit in edits]
    work("mf_old")
    await eventually(lambda: len(tried) > limits.max_attempts + 1)
    assert {edit.status for edit in await store.wait_status("p", ids, timeout_s=0)} <= {
        EditStatus.PENDING,
        EditStatus.COMPRESSING,
    }
    work("mf_new")
    assert {edit.status for edit in await store.wait_status("p", ids, timeout_s=60)} == {EditStatus.READY}
    tasks += [task for task in (scheduler._ticker, actor._clock) if task]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, *scheduler._marks, return_exceptions=True)
    actor._reader.shutdown()
    actor._writer.shutdown()
    actor._store.close()
