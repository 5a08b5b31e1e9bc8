"""Labels over real Ray: a move is active when every live replica has it, whole, and a killed store loses none."""

import asyncio
import random
import statistics
import time

import pytest
from incomes_server.edits import NewEdit
from incomes_server.replicas import sync
from incomes_server.replicas.sync import run_replica

from incomes_plugin.pool.snapshot import SnapshotRef, label_key
from tests.server.gists import keys_of, outcome_of

pytestmark = pytest.mark.ray


class Engine:
    """Every state that a replica was brought to; `at` has the one of each edit set and label, as requests find it."""

    def __init__(self, store, name):
        self.states = {}
        self.at = {}
        self.seen = []
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self.caught_up = asyncio.Event()
        self.task = asyncio.create_task(run_replica(store, self.apply, name=name, on_caught_up=self.caught_up.set))

    async def apply(self, delta):
        await self.goes_on.wait()
        if delta.deleted:
            self.at.pop(delta.key, None)
            return
        start = {} if delta.base is None else self.states[delta.base]
        gone = set(delta.removed)
        assert gone <= start.keys()
        content = {key: blob for key, blob in start.items() if key not in gone}
        content |= dict(zip(keys_of(delta.added), delta.added, strict=True))
        after = SnapshotRef.empty(delta.snapshot.edit_set).advance(list(content), [])
        assert (after.id, after.num_edits) == (delta.snapshot.id, delta.snapshot.num_edits)
        self.states[after.id] = content
        self.at[delta.key] = after.id
        self.seen.append((delta.key, after.id))

    async def stop(self):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def versions(stack, project, count):
    """An edit set with so many versions, one edit more in each; its id, and the snapshots' ids from version 0 on."""
    await stack.store.ensure_edit_set(project, "default")
    new = [NewEdit(f"text {i}", (1, 2)) for i in range(count)]
    ids = []
    for edit in await stack.store.add_edits(project, "default", new, request_id="add"):
        await stack.store.record_outcomes([outcome_of(edit.id, 1)])
        ids.append((await stack.store.get_edit_set(project, "default")).snapshot.id)
    edit_set = (await stack.store.get_edit_set(project, "default")).id
    return edit_set, [SnapshotRef.empty(edit_set).id, *ids]


async def started(stack, names):
    engines = {name: Engine(stack.store, name) for name in names}
    await asyncio.gather(*(engine.caught_up.wait() for engine in engines.values()))
    return engines


def own(engine, edit_set):
    """What the engine has of one edit set: the other tests' sets are in the store too."""
    return {key: state for key, state in engine.at.items() if key.startswith(edit_set)}


async def move(stack, project, to, request_id, name="production"):
    return await stack.store.move_label(project, "default", name, str(to), request_id=request_id)


async def test_a_promotion_waits_for_a_stalled_replica_and_not_for_a_dead_one(stack, project, monkeypatch):
    edit_set, ids = await versions(stack, project, 5)
    engines = await started(stack, ["one", "two", "dead", "stalled"])
    key = label_key(edit_set, "production")
    try:
        label = await move(stack, project, 2, "first")
        assert (await stack.store.wait_active(key, label.move, timeout_s=30)).acked == 4
        assert {engine.at[key] for engine in engines.values()} == {ids[2]}

        engines["dead"].task.cancel()  # as by kill -9: it does not say that it leaves
        monkeypatch.setattr(sync, "LEAVE_S", 0.0)
        engines["stalled"].goes_on.clear()
        label = await move(stack, project, 5, "second")
        progress = await stack.store.wait_active(key, label.move, timeout_s=2)
        assert not progress.reached
        assert {engines[name].at[key] for name in ("one", "two")} == {ids[5]}
        assert engines["stalled"].at[key] == ids[2]

        waiting = asyncio.create_task(stack.store.wait_active(key, label.move, timeout_s=60))
        await asyncio.sleep(12)  # longer than a lease: the dead one is waited for no more, the stalled one is
        assert not waiting.done()
        engines["stalled"].goes_on.set()
        progress = await waiting
        assert (progress.reached, progress.live) == (True, 3)
        live = [engines[name] for name in ("one", "two", "stalled")]
        assert sum(random.choice(live).at[key] != ids[5] for _ in range(1000)) == 0
    finally:
        await asyncio.gather(*(engine.stop() for engine in engines.values()))


async def test_a_store_killed_during_moves_loses_none_and_halves_none(stack, project):
    edit_set, ids = await versions(stack, project, 6)
    engines = await started(stack, ["one", "two"])
    key = label_key(edit_set, "production")
    try:
        places, number = [], 0
        for number, to in enumerate([6, 1, 4, 2, 5, 3, 6, 2], 1):
            moving = asyncio.create_task(move(stack, project, to, f"move {number}"))
            await asyncio.sleep(random.uniform(0, 0.02))
            await stack.kill(stack.store)
            label = await moving
            assert (label.move, label.snapshot.version) == (number, to)
            places.append(ids[to])
            assert (await stack.store.wait_active(key, number, timeout_s=60)).reached
            assert {engine.at[key] for engine in engines.values()} == {ids[to]}
        for engine in engines.values():
            assert [state for name, state in engine.seen if name == key] == places
    finally:
        await asyncio.gather(*(engine.stop() for engine in engines.values()))


async def test_a_new_replica_gets_the_set_first_and_every_label_before_it_serves(stack, project):
    edit_set, ids = await versions(stack, project, 4)
    for name, to in (("production", 2), ("staging", 4), ("gone", 1)):
        await move(stack, project, to, name, name=name)
    await stack.store.delete_label(project, "default", "gone", request_id="delete")
    engines = await started(stack, ["late"])
    try:
        assert own(engines["late"], edit_set) == {
            edit_set: ids[4],
            label_key(edit_set, "production"): ids[2],
            label_key(edit_set, "staging"): ids[4],
        }
        for name in ("production", "staging"):
            await stack.store.delete_label(project, "default", name, request_id=f"delete {name}")
        await stack.store.delete_edit_set(project, "default", request_id="delete set")
        async with asyncio.timeout(30):
            while own(engines["late"], edit_set):
                await asyncio.sleep(0.05)
    finally:
        await engines["late"].stop()


async def test_how_long_a_move_takes(stack, project, figure):
    edit_set, _ = await versions(stack, project, 20)
    engines = await started(stack, ["one", "two", "three", "four"])
    key = label_key(edit_set, "production")
    seconds = []
    try:
        for number in range(1, 101):
            start_s = time.monotonic()
            label = await move(stack, project, 20 if number % 2 else 3, f"move {number}")
            assert (await stack.store.wait_active(key, label.move, timeout_s=30)).reached
            seconds.append(time.monotonic() - start_s)
    finally:
        await asyncio.gather(*(engine.stop() for engine in engines.values()))
    p95 = statistics.quantiles(seconds, n=20)[-1]
    figure(f"100 moves of a label, active on 4 replicas: p50 {statistics.median(seconds):.3f} s, p95 {p95:.3f} s")
    assert p95 <= 2
