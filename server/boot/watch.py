"""Watches engine, store, scheduler and Ray once a second, so that /readyz and the chat gate answer from what is known.

in: process states and one cheap call to each actor      out: `Readiness`, and the end of the server when a part is dead
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import psutil
from incomes_server.api.http.readiness import Readiness

from incomes_plugin.errors import EngineLost, IncomesError

EVERY_S = 1.0
ANSWER_WITHIN_S = 3.0
ENGINE_ANSWERS_WITHIN_S = 60.0
"""A step of long prompts on a busy machine takes many seconds, and calls wait for its end."""

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
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            line = " ".join(process.cmdline())
        except psutil.NoSuchProcess:
            continue
        found += [Part(name, process) for name, marks in PARTS.items() if any(mark in line for mark in marks)]
    return found


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
            async with asyncio.timeout(within_s):
                reason = await ask()
        except TimeoutError:
            reason = f"no answer within {within_s:g} s"
        except IncomesError as error:
            reason = error.message
        readiness.note(check, reason)
        await asyncio.sleep(EVERY_S)
