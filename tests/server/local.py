"""The admin API on real store and scheduler actors that live in the test's process: no Ray, no engine.

Gists and the replica's pool are the only made-up parts. A server belongs to one event loop: where a fixture starts it,
the tests run in the loop of fixtures, `pytest.mark.asyncio(loop_scope="session")`.
"""

from __future__ import annotations

import asyncio
import pickle
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import torch
import uvicorn
from fastapi import FastAPI
from incomes_server.api.admin.app import build_admin_app
from incomes_server.api.admin.context import AdminContext
from incomes_server.api.admin.import_runner import run_imports
from incomes_server.api.admin.pool_room import PoolRoom
from incomes_server.api.admin.tokens import EditTokenizer
from incomes_server.api.http.readiness import Readiness
from incomes_server.auth.keys import KeyRing
from incomes_server.boot.ray_local import prepare_ray_environment
from incomes_server.compression.client import CompressionClient
from incomes_server.compression.model import QueueLimits
from incomes_server.compression.scheduler import SchedulerActor
from incomes_server.compression.worker import Compare, run_worker
from incomes_server.replicas.sync import run_replica
from incomes_server.settings import Settings
from incomes_server.store.actor import EditStoreActor
from incomes_server.store.client import StoreClient
from incomes_server.store.directory import EditSetDirectory

from incomes_plugin.gist.edit import Captured, CaptureJob
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.pool.snapshot import SnapshotDelta
from tests.server.gists import outcome_of


class Local:
    """A handle on an actor in this process, with the calls that a Ray handle has; arguments arrive as copies."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def __getattr__(self, method: str) -> Any:
        def remote(*args: Any, **kwargs: Any) -> Any:
            args, kwargs = pickle.loads(pickle.dumps((args, kwargs)))
            return getattr(self._actor, method)(*args, **kwargs)

        return SimpleNamespace(remote=remote)


@dataclass
class LocalServer:
    """A running admin API.

    Attributes:
        works: cleared, the worker compresses nothing.
    """

    app: FastAPI
    context: AdminContext
    works: asyncio.Event

    def client(self, key: str | None = None) -> httpx.AsyncClient:
        """An HTTP client; `key` is an API key."""
        headers = {"authorization": f"Bearer {key}"} if key else {}
        transport = httpx.ASGITransport(app=self.app)
        return httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers, timeout=60)


async def compress(jobs: Sequence[CaptureJob]) -> list[Captured]:
    """What the engine would make of them; a text of one token cannot be compressed."""
    return [
        Captured(*job.edit, None, error="too short") if len(job.token_ids) == 1 else outcome_of(*job.edit)
        for job in jobs
    ]


Make = Callable[[Sequence[CaptureJob]], Awaitable[list[Captured]]]


@asynccontextmanager
async def local_server(
    database_url: str,
    model: Path,
    settings: Settings | None = None,
    *,
    make: Make = compress,
    compare: Compare | None = None,
    commit: Callable[[SnapshotDelta[bytes]], None] = lambda _: None,
) -> AsyncIterator[LocalServer]:
    """Store, scheduler, worker and replica, and the admin app on them.

    Args:
        model: a folder of `write_tiny_model`.
        make: compresses edits.
        compare: compares them with others; nobody does by default.
        commit: gets what the replica applies.
    """
    prepare_ray_environment()  # the clients import Ray for its errors; later tests may start it
    settings, adapter = settings or Settings(), EditAdapter.load(model / "adapter")
    actor = EditStoreActor(database_url, masters=settings.masters())
    scheduler = SchedulerActor("local", QueueLimits(sweep_s=0.2))
    store, queue = StoreClient(Local(actor)), CompressionClient(Local(scheduler))
    scheduler._store = store
    keys = KeyRing(settings.api_keys, store.tenancy)
    room = PoolRoom(SimpleNamespace(adapter=adapter, dtype=torch.bfloat16), store, settings.quotas_by(keys))  # type: ignore[arg-type]
    tokenizer = EditTokenizer(model, adapter.max_edit_tokens)
    directory = EditSetDirectory(store, settings.default_edit_set)
    context = AdminContext(settings, store, queue, tokenizer, directory, room, keys)
    works, caught_up = asyncio.Event(), asyncio.Event()
    works.set()

    async def when_allowed(jobs: Sequence[CaptureJob]) -> list[Captured]:
        await works.wait()
        return await make(jobs)

    async def apply(delta: SnapshotDelta[bytes]) -> None:
        commit(delta)

    loops = [
        asyncio.create_task(run_worker(queue, store, when_allowed, compare, name="one", batch=32)),
        asyncio.create_task(run_replica(store, apply, name="one", on_caught_up=caught_up.set)),
        asyncio.create_task(run_imports(context)),
    ]
    await asyncio.wait_for(caught_up.wait(), 60)
    try:
        yield LocalServer(build_admin_app(context, settings, Readiness()), context, works)
    finally:
        ticker = [task for task in (scheduler._ticker, actor._clock) if task]
        for loop in [*loops, *ticker]:
            loop.cancel()
        await asyncio.gather(*loops, *ticker, *scheduler._marks, return_exceptions=True)
        actor._reader.shutdown()
        actor._writer.shutdown()
        actor._store.close()


@asynccontextmanager
async def over_http(app: Any) -> AsyncIterator[str]:
    """Serve an app on a free loopback port, in this loop; yields the address."""
    config = uvicorn.Config(app, port=0, log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        task = asyncio.create_task(server.serve(sockets=[listening]))
        while not server.started:
            await asyncio.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task
