"""Watches engine, store, scheduler and Ray once a second, so that /readyz and the chat gate answer from what is known.

in: process states and one cheap call to each actor      out: `Readiness`, and the end of the server when a part is dead
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import psutil
from incomes_server.api.http.readiness import Readiness

from incomes_plugin.errors import EngineLost, IncomesError

EVERY_S = 1.0
ANSWER_WITHIN_S = 10.0
"""A commit of the store waits for the disk, and on a busy machine for its turn. One that is stopped is seen at once."""

ENGINE_ANSWERS_WITHIN_S = 60.0
"""Seconds in which the engine must answer a call. Calls wait for the running step, and a step of long prompts takes
many seconds on a busy machine."""

ACTORS = {"store_answers": "ray::EditStoreActor", "scheduler_answers": "ray::SchedulerActor"}
"""Process behind a check. Ray starts it anew when it dies."""

PARTS = {"engine": ("VLLM::", "spawn_main"), "Ray's control store": ("gcs_server",), "Ray's node": ("raylet/raylet",)}


@dataclass(frozen=True)
class Part:
    """A process that the server cannot do without."""

    name: str
    process: psutil.Process

    def problem(self) -> tuple[str | None, bool]:
        """What is wrong with it, and whether only a restart helps."""
        try:
            status = self.process.status()
        except psutil.NoSuchProcess:
            status = psutil.STATUS_DEAD
        if status in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return f"{self.name} (process {self.process.pid}) died", True
        if status in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP):
            return f"{self.name} (process {self.process.pid}) is stopped", False
        return None, False


def parts_of_this_process() -> list[Part]:
    """Engine, Ray's control store and node, among the children of this process."""
    return [
        Part(name, process)
        for process, line in _children()
        for name, marks in PARTS.items()
        if any(mark in line for mark in marks)
    ]


def stopped_actor(check: str) -> str | None:
    """Why the actor behind a check cannot answer, if its process is stopped. Looks through all children."""
    parts = [Part(check.partition("_")[0], child) for child, line in _children() if ACTORS.get(check, "\n") in line]
    return next((reason for reason, _ in (part.problem() for part in parts) if reason), None)


def _children() -> Iterator[tuple[psutil.Process, str]]:
    """All descendants of this process, and their command lines."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            yield process, " ".join(process.cmdline())


async def watch_processes(readiness: Readiness, parts: Sequence[Part]) -> None:
    """Note stopped processes until cancelled.

    Raises:
        EngineLost: one has died.
    """
    while True:
        problems = [part.problem() for part in parts]
        for reason, is_dead in problems:
            if reason is not None and is_dead:
                raise EngineLost(f"{reason}; the server ends, so that whoever supervises it starts it anew")
        readiness.note("processes", next((reason for reason, _ in problems if reason), None))
        await asyncio.sleep(EVERY_S)


async def watch_answers(
    readiness: Readiness, check: str, ask: Callable[[], Awaitable[str | None]], within_s: float = ANSWER_WITHIN_S
) -> None:
    """Ask again and again until cancelled; note what the answer says, or that there is none.

    Args:
        check: name of the check on /readyz.
        ask: returns None, or what is wrong.
    """
    while True:
        try:
            reason = await _answer(check, ask, within_s)
        except IncomesError as error:
            reason = error.message
        readiness.note(check, reason)
        await asyncio.sleep(EVERY_S)


async def _answer(check: str, ask: Callable[[], Awaitable[str | None]], within_s: float) -> str | None:
    """What the answer says, or that there is none: at once where its process is stopped. Raises what `ask` raises."""
    asking = asyncio.ensure_future(ask())
    end_s = time.monotonic() + within_s
    try:
        while (left_s := end_s - time.monotonic()) > 0:
            done, _ = await asyncio.wait([asking], timeout=min(EVERY_S, left_s))
            if done:
                return asking.result()
            if check in ACTORS and (reason := await asyncio.to_thread(stopped_actor, check)):
                return reason
        return f"no answer within {within_s:g} s"
    finally:
        asking.cancel()
