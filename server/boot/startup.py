"""Small steps of a start: wait for Ray or a signal, make blocking code interruptible."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from incomes_server.boot.actors import RaySettings
from incomes_server.boot.ray_local import stop_ray
from incomes_server.compression.model import QueueLimits
from incomes_server.settings import Settings
from incomes_server.store.terms import StoreTerms

from incomes_plugin.errors import EngineLost

STOP_S = 10.0
"""Seconds that engine and Ray get to stop, after the time for running answers is over."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)

EndNow: TypeAlias = Callable[[EngineLost | None], None]
"""Ends the process at once, and says why if there is an error."""


def ray_settings(settings: Settings) -> RaySettings:
    """Ray's part of the settings."""
    limits = QueueLimits(interactive=settings.queue_limit, bulk=settings.queue_limit)
    masters = () if settings.join else settings.masters()
    return RaySettings(
        settings.edit_store,
        address=settings.ray_address,
        token=settings.ray_token,
        namespace=settings.ray_namespace,
        node_ip=None if settings.ray_node_ip is None else str(settings.ray_node_ip),
        limits=limits,
        masters=masters,
        master_source=None if settings.join else settings.master_source(),
        join=settings.join,
        terms=StoreTerms.of(settings, masters),
        gist_storage=settings.gist_storage,
    )


async def stop_ray_after(starting: asyncio.Task[None]) -> None:
    """Stop Ray, but never while it is still starting."""
    await asyncio.wait([starting])
    stop_ray()


def engine_loss(app: Any) -> str | None:
    """Why the engine cannot answer, or None."""
    client = app.state.engine_client
    return "the engine died; restart the server" if client.errored else None


def end_at_last(drain_s: float, end_now: EndNow, loss: EngineLost | None) -> None:
    """End the process after `drain_s` + `STOP_S` seconds, even if something hangs. The guardian process then ends its
    children.

    Args:
        loss: why the server stops, if it was not asked to: without a control store Ray's own end may hang.
    """
    timer = threading.Timer(drain_s + STOP_S, end_now, (loss,))
    timer.daemon = True
    timer.start()


async def first_of(*events: asyncio.Event) -> None:
    """Return when one of the events is set."""
    tasks = [asyncio.create_task(event.wait()) for event in events]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


async def unless(stop: asyncio.Event, work: Awaitable[None]) -> None:
    """Do the work, or leave it when `stop` is set. Raises what the work raises."""
    doing, stopping = asyncio.ensure_future(work), asyncio.create_task(stop.wait())
    await asyncio.wait([doing, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if doing.done():
        await doing
    doing.cancel()


@contextmanager
def interruptible() -> Iterator[None]:
    """For start-up code that blocks the event loop: a signal raises KeyboardInterrupt there at once."""

    def interrupt(*_: Any) -> None:
        signal.alarm(0)  # Ray's SIGTERM handler (abseil's) runs before ours and would abort the process in 3 s
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
