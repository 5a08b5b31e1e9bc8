"""The admin API with a worker and a replica around the real actors; gists and pool are the only made-up parts."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import torch
from incomes_server.api.admin.app import build_admin_app
from incomes_server.api.admin.context import AdminContext
from incomes_server.api.admin.pool_room import PoolRoom
from incomes_server.api.admin.tokens import EditTokenizer
from incomes_server.api.http.readiness import Readiness
from incomes_server.auth.keys import KeyRing
from incomes_server.compression.client import CompressionClient
from incomes_server.compression.worker import run_worker
from incomes_server.replicas.sync import run_replica
from incomes_server.settings import Settings
from incomes_server.store.client import StoreClient
from incomes_server.store.directory import EditSetDirectory

from incomes_plugin.model.adapter import EditAdapter
from tests.server.gists import outcome_of


class Counted:
    """An actor's handle that counts the calls made through it."""

    def __init__(self, actor: Any, calls: Counter[str]) -> None:
        self._actor, self._calls = actor, calls

    def __getattr__(self, method: str) -> SimpleNamespace:
        def remote(*args: Any, **kwargs: Any) -> Any:
            self._calls[method] += 1
            return getattr(self._actor, method).remote(*args, **kwargs)

        return SimpleNamespace(remote=remote)


@asynccontextmanager
async def serving(
    stack: Any, model: Path, calls: Counter[str] | None = None, settings: Settings | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the API, inside the block.

    Args:
        calls: counts the calls of actors.
    """
    calls = Counter() if calls is None else calls
    store = StoreClient(Counted(stack.store._actor, calls))
    queue = CompressionClient(Counted(stack.compression._actor, calls))
    settings = settings or Settings()
    keys = KeyRing(settings.api_keys, store.tenancy)
    adapter = EditAdapter.load(model / "adapter")
    pool: Any = SimpleNamespace(adapter=adapter, dtype=torch.bfloat16)
    context = AdminContext(
        settings, store, queue, EditTokenizer(model, adapter.max_edit_tokens),
        EditSetDirectory(store, settings.default_edit_set), PoolRoom(pool, store, settings.quotas_by(keys)), keys,
    )  # fmt: skip
    caught_up = asyncio.Event()

    async def compress(jobs: Any) -> Any:
        return [outcome_of(job.edit_id, job.version) for job in jobs]

    async def apply(_delta: Any) -> None:
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
