"""How often the actors are called in one edit's life: from its request to its acknowledgement by every replica."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import asynccontextmanager
from types import SimpleNamespace

import httpx
import pytest
import torch
from incomes_server.api.admin.app import build_admin_app
from incomes_server.api.admin.context import AdminContext
from incomes_server.api.admin.pool_room import PoolRoom
from incomes_server.api.admin.tokens import EditTokenizer
from incomes_server.api.http.readiness import Readiness
from incomes_server.compression.client import CompressionClient
from incomes_server.compression.worker import run_worker
from incomes_server.replicas.sync import WAIT_S, run_replica
from incomes_server.settings import Settings
from incomes_server.store.client import StoreClient
from incomes_server.store.directory import EditSetDirectory

from incomes_plugin.model.adapter import EditAdapter
from tests.server.gists import outcome_of
from tests.tiny_model import write_tiny_model

pytestmark = pytest.mark.ray


class Counted:
    """An actor's handle that counts the calls made through it."""

    def __init__(self, actor, calls):
        self._actor, self._calls = actor, calls

    def __getattr__(self, method):
        def remote(*args, **kwargs):
            self._calls[method] += 1
            return getattr(self._actor, method).remote(*args, **kwargs)

        return SimpleNamespace(remote=remote)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@asynccontextmanager
async def serving(stack, model, calls):
    """The admin API with a worker and a replica around the real actors; gists and pool are the only made-up parts."""
    store = StoreClient(Counted(stack.store._actor, calls))
    queue = CompressionClient(Counted(stack.compression._actor, calls))
    settings, adapter = Settings(), EditAdapter.load(model / "adapter")
    pool = SimpleNamespace(adapter=adapter, dtype=torch.bfloat16)
    context = AdminContext(
        settings, store, queue, EditTokenizer(model, adapter.max_edit_tokens),
        EditSetDirectory(store, settings.default_edit_set), PoolRoom(pool, store, settings.quotas),
    )  # fmt: skip
    caught_up = asyncio.Event()

    async def compress(jobs):
        return [outcome_of(job.edit_id, job.version) for job in jobs]

    async def apply(_delta):
        return None

    loops = [
        asyncio.create_task(run_worker(queue, store, compress, name="one", batch=8)),
        asyncio.create_task(run_replica(store, apply, name="one", on_caught_up=caught_up.set)),
    ]
    await asyncio.wait_for(caught_up.wait(), 60)
    transport = httpx.ASGITransport(app=build_admin_app(context, settings, Readiness()))
    async with httpx.AsyncClient(transport=transport, base_url="http://test", timeout=60) as client:
        yield client
    for loop in loops:
        loop.cancel()
    await asyncio.gather(*loops, return_exceptions=True)


async def added(client, text):
    params = {"wait": "active", "timeout_s": 60}
    answer = await client.post("/v1/edits", json={"text": text}, params=params)
    assert answer.status_code == 201, answer.text
    assert answer.json()["reached"] == "active"


async def idle(stack):
    """The lease is settled, and worker and replica wait for what comes next."""
    while (await stack.compression.stats()).leased:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)


async def test_an_edits_life_takes_six_calls(stack, model, figure):
    calls = Counter()
    async with serving(stack, model, calls) as client:
        await added(client, "The first edit makes the default set.")
        await idle(stack)
        calls.clear()
        started = time.monotonic()
        await added(client, "The warranty of pump Z9 is 36 months.")
        await idle(stack)
        elapsed_s = time.monotonic() - started
        made = Counter(calls)
    figure(f"calls of actors in one edit's life: {dict(made)}")
    polls = made.pop("poll")
    made.pop("read", None)  # what projects use, looked up once a second at most
    assert made == {"write": 2, "submit": 1, "wait_edits": 1, "lease": 1}
    assert 1 <= polls <= 2 + elapsed_s / WAIT_S
