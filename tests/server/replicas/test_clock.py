"""Edits join and leave at their times on every replica, within a second."""

import asyncio
import time

from incomes_server.edits import NewEdit
from incomes_server.replicas.sync import run_replica
from incomes_server.store.actor import EditStoreActor
from incomes_server.store.client import StoreClient

from tests.eventually import SOON_S, eventually
from tests.server.gists import keys_of, outcome_of
from tests.server.local import Local


class Follower:
    """What a replica holds, and when it changed."""

    def __init__(self, store, name):
        self.held, self.moments, self.ends = set(), [], {}
        self.caught_up = asyncio.Event()
        self.task = asyncio.create_task(run_replica(store, self.apply, name=name, on_caught_up=self.caught_up.set))

    async def apply(self, delta):
        added = keys_of(delta.added)
        self.held = self.held - set(delta.removed) | set(added)
        self.ends |= dict(zip(added, delta.until, strict=True))
        self.moments.append((time.time(), set(self.held)))


async def test_two_replicas_follow_the_clock_within_a_second(database_url, figure):
    actor = EditStoreActor(database_url)
    store = StoreClient(Local(actor))
    edit_set = await store.ensure_edit_set("p", "default")
    followers = [Follower(store, name) for name in ("one", "two")]
    await asyncio.gather(*(follower.caught_up.wait() for follower in followers))
    start, end = int(time.time()) + 2, int(time.time()) + 4
    new = NewEdit("for two seconds", (1, 2), effective_from=start, expires_at=end)
    (edit,) = await store.add_edits("p", "default", [new], request_id="1")
    await store.record_outcomes([outcome_of(edit.id, 1)])
    await eventually(lambda: all(len(follower.moments) == 2 for follower in followers))
    late = []
    for follower in followers:
        (joined, with_it), (left, without) = follower.moments
        assert (with_it, without) == ({(edit.id, 1)}, set())
        assert follower.ends == {(edit.id, 1): end}
        late += [joined - start, left - end]
    figure(f"edits join and leave {1000 * min(late):.0f} to {1000 * max(late):.0f} ms after their times")
    assert all(0 <= seconds < SOON_S for seconds in late), late
    assert (await store.wait_active(edit_set.id, 2, timeout_s=5)).reached
    tasks = [*(follower.task for follower in followers), actor._clock]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    actor._reader.shutdown()
    actor._writer.shutdown()
    actor._store.close()
