"""Group commit: writes that arrive while a transaction is being synced are collected and share the next transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

from incomes_server.store.commands import Command, Sent
from incomes_server.store.core import Committed, EditStore
from incomes_server.store.database import failure_of
from sqlalchemy.exc import SQLAlchemyError

MAX_GROUP = 256


class GroupCommit:
    """Feeds commands of many callers to the store, in order, from one event loop through one writer thread."""

    def __init__(self, store: EditStore, writer: Executor, on_commit: Callable[[Committed], None]) -> None:
        self._store = store
        self._writer = writer
        self._on_commit = on_commit
        self._waiting: list[tuple[Command | Sent, asyncio.Future[Any]]] = []
        self._task: asyncio.Task[None] | None = None

    async def submit(self, command: Command | Sent) -> Any:
        """Result of the command once it is durable. Raises the command's own error, or NotReady."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((command, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._drain())
        return await future

    async def _drain(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting[:MAX_GROUP], self._waiting[MAX_GROUP:]
            for result, (_, future) in zip(await self._commit([command for command, _ in group]), group, strict=True):
                if future.done():
                    continue
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)

    async def _commit(self, group: list[Command | Sent]) -> list[Any]:
        loop = asyncio.get_running_loop()
        try:
            committed = await loop.run_in_executor(self._writer, self._store.commit, group)
        except SQLAlchemyError as error:
            return [failure_of(error)] * len(group)
        except Exception as error:  # noqa: BLE001 - whatever it is, the callers must not wait for ever
            return [error] * len(group)
        self._on_commit(committed)
        return committed.results
