"""Wake-ups inside one event loop. Nothing is polled: whoever changes something notifies whoever waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class Signal:
    """Wakes all who wait now. Check the state, then wait, with no `await` in between: no wake-up is lost."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notify(self) -> None:
        """Wake them."""
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, timeout_s: float) -> None:
        """Until the next `notify`, or the timeout."""
        await wait_event(self._event, timeout_s)


class Watch:
    """Wakes those who wait for one of certain keys: a thousand waiters cost a change nothing unless it is theirs."""

    def __init__(self) -> None:
        self._events: dict[str, set[asyncio.Event]] = {}

    def notify(self, keys: Iterable[str]) -> None:
        """Wake whoever watches one of them."""
        for key in keys:
            for event in self._events.get(key, ()):
                event.set()

    @contextmanager
    def on(self, keys: Iterable[str]) -> Iterator[asyncio.Event]:
        """An event that is set when one of the keys is notified; clear it before looking at the state."""
        event, keys = asyncio.Event(), set(keys)
        for key in keys:
            self._events.setdefault(key, set()).add(event)
        try:
            yield event
        finally:
            for key in keys:
                self._events[key].discard(event)
                if not self._events[key]:
                    del self._events[key]


async def wait_event(event: asyncio.Event, timeout_s: float) -> None:
    """Until it is set, or the timeout."""
    try:
        async with asyncio.timeout(max(0.0, timeout_s)):
            await event.wait()
    except TimeoutError:
        return
