"""A replica that the store waits for no longer answers nobody, whatever it is busy with: one edit is retired meanwhile,
and counted as gone everywhere."""

import asyncio
import time
from contextlib import asynccontextmanager

import pytest
from incomes_server.api.http.readiness import STAGES, Readiness
from incomes_server.edits import NewEdit
from incomes_server.replicas import sync
from incomes_server.store.actor import EditStoreActor
from incomes_server.store.client import StoreClient

from incomes_plugin.errors import NotReady
from tests.eventually import eventually
from tests.server.gists import keys_of, outcome_of
from tests.server.local import Local

LEASE_S = 1.0


class Link(StoreClient):
    """The way to the store: it can be cut, and the whole process can be stopped when an answer has come."""

    def __init__(self, actor):
        super().__init__(actor)
        self.is_cut = False
        self.stop_s = 0.0

    async def poll(self, *args, **kwargs):
        deltas = await self._through(super().poll, *args, **kwargs)
        stop_s, self.stop_s = self.stop_s, 0.0
        time.sleep(stop_s)  # nothing of this process runs
        return deltas

    async def heartbeat(self, *args, **kwargs):
        return await self._through(super().heartbeat, *args, **kwargs)

    async def _through(self, ask, *args, **kwargs):
        if self.is_cut:
            raise NotReady("the network is cut")
        return await ask(*args, **kwargs)


class Server:
    """A replica, and what it would answer from."""

    def __init__(self, store):
        self.held, self.readiness, self.goes_on = set(), Readiness(), asyncio.Event()
        self.goes_on.set()
        for stage in STAGES:
            self.readiness.passed(stage)
        self.readiness.failed("replica", "not started")
        caught_up = {"on_caught_up": lambda: self.readiness.passed("replica"), "on_leased": self.readiness.leased}
        lost = {"on_lost": lambda reason: self.readiness.failed("replica", reason)}
        self.task = asyncio.create_task(sync.run_replica(store, self.apply, name="one", **caught_up, **lost))

    async def apply(self, delta):
        await self.goes_on.wait()
        self.held = self.held - set(delta.removed) | set(keys_of(delta.added))


@asynccontextmanager
async def serving(database_url, monkeypatch):
    """A server with one edit, the store, and the way between them."""
    monkeypatch.setattr(sync, "LEASE_S", LEASE_S)
    monkeypatch.setattr(sync, "WAIT_S", LEASE_S / 5)
    actor = EditStoreActor(database_url, lease_s=LEASE_S)
    store = StoreClient(Local(actor))
    link = Link(Local(actor))
    await store.ensure_edit_set("p", "default")
    (edit,) = await store.add_edits("p", "default", [NewEdit("a", (1, 2))], request_id="1")
    await store.record_outcomes([outcome_of(edit.id, 1)])
    server = Server(link)
    await eventually(lambda: server.readiness.ready and server.held)
    yield server, store, link, edit
    tasks = [task for task in (server.task, actor._clock) if task]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    actor._reader.shutdown()
    actor._writer.shutdown()
    actor._store.close()


async def gone(store, edit):
    """Retire it and wait until nobody is waited for; whoever has it then must not answer."""
    left = await store.retire_edit("p", edit.id, request_id="r")

    async def is_alone():
        progress = await store.wait_active(edit.edit_set, left.set_version, timeout_s=0.05)
        return (progress.live, progress.acked) == (0, 0)

    await eventually(is_alone)


async def test_a_server_that_was_stopped_with_an_answer_in_its_hands_does_not_go_on_from_there(
    database_url, monkeypatch
):
    async with serving(database_url, monkeypatch) as (server, _, link, _):
        seen = []
        server.readiness.failed = lambda stage, reason: seen.append(stage)
        link.stop_s = 3 * LEASE_S
        await eventually(lambda: not link.stop_s)
        with pytest.raises(NotReady, match="waits for this server no more"):
            server.readiness.require()
        await eventually(lambda: seen == ["replica"])
        await eventually(lambda: server.readiness.ready)


async def test_a_server_that_applies_a_change_while_it_is_cut_off_answers_nobody(database_url, monkeypatch):
    async with serving(database_url, monkeypatch) as (server, store, link, edit):
        server.goes_on.clear()
        (other,) = await store.add_edits("p", "default", [NewEdit("b", (1, 2))], request_id="2")
        await store.record_outcomes([outcome_of(other.id, 1)])
        link.is_cut = True
        await gone(store, edit)
        assert (edit.id, 1) in server.held
        with pytest.raises(NotReady, match="waits for this server no more"):
            server.readiness.require()
        link.is_cut = False
        server.goes_on.set()
        await eventually(lambda: server.readiness.ready)
        assert server.held == {(other.id, 1)}


async def test_a_sign_of_life_that_comes_too_late_is_none(database_url, monkeypatch):
    """The link is back before the change is applied: the store has told others meanwhile that the edit is gone."""
    async with serving(database_url, monkeypatch) as (server, store, link, edit):
        server.goes_on.clear()
        (other,) = await store.add_edits("p", "default", [NewEdit("b", (1, 2))], request_id="2")
        await store.record_outcomes([outcome_of(other.id, 1)])
        link.is_cut = True
        await gone(store, edit)
        link.is_cut = False
        await asyncio.sleep(3 * LEASE_S / 2)  # several signs of life
        assert (edit.id, 1) in server.held
        with pytest.raises(NotReady):
            server.readiness.require()
        server.goes_on.set()
        await eventually(lambda: server.readiness.ready)
        assert server.held == {(other.id, 1)}
