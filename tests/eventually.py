"""Waiting for what comes about by itself: tests look again until it has, however slow the machine is."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable

WITHIN_S = 60.0
SOON_S = 10.0
"""What is promised within a second is late for a test after so long: suites run side by side."""


async def eventually(holds: Callable[[], object | Awaitable[object]], within_s: float = WITHIN_S) -> None:
    """Wait until `holds()`, or what it awaits, is true.

    Raises:
        AssertionError: it was not within `within_s` seconds; says what it was at last.
    """
    end_s = time.monotonic() + within_s
    while True:
        value = holds()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return
        assert time.monotonic() < end_s, f"still {value!r} after {within_s} s"
        await asyncio.sleep(0.02)


def eventually_sync(holds: Callable[[], object], within_s: float = WITHIN_S) -> None:
    """The same for tests without an event loop."""
    end_s = time.monotonic() + within_s
    while not (value := holds()):
        assert time.monotonic() < end_s, f"still {value!r} after {within_s} s"
        time.sleep(0.02)
