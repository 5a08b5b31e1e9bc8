"""Wake-ups inside one event loop. Nothing is polled: code that changes something wakes the tasks that wait for it."""

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


class Changes:
    """What has happened to the keys that somebody watches."""

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self._keys: set[str] = set()

    def note(self, key: str) -> None:
        """The key has changed."""
        self._keys.add(key)
        self.event.set()

    def take(self) -> set[str]:
        """The keys that have changed since the last call."""
        keys, self._keys = self._keys, set()
        self.event.clear()
        return keys


class Watch:
    """Wakes the tasks that wait for certain keys. A change wakes only those who wait for its key, however many others
    wait."""

    def __init__(self) -> None:
        self._watchers: dict[str, set[Changes]] = {}

    def notify(self, keys: Iterable[str]) -> None:
        """Wake whoever watches one of them."""
        for key in keys:
            for changes in self._watchers.get(key, ()):
                changes.note(key)

    @contextmanager
    def on(self, keys: Iterable[str]) -> Iterator[Changes]:
        """Collects which of the keys are notified inside the block."""
        changes, keys = Changes(), set(keys)
        for key in keys:
            self._watchers.setdefault(key, set()).add(changes)
        try:
            yield changes
        finally:
            for key in keys:
                self._watchers[key].discard(changes)
                if not self._watchers[key]:
                    del self._watchers[key]


async def wait_event(event: asyncio.Event, timeout_s: float) -> None:
    """Until it is set, or the timeout."""
    try:
        async with asyncio.timeout(max(0.0, timeout_s)):
            await event.wait()
    except TimeoutError:
        return
