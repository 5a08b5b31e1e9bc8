"""One printed line per start-up stage, with its seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from incomes_server.api.http.readiness import Readiness

Announce = Callable[[str], None]


class Stages:
    """Times the stages of a start, prints one line each and keeps `Readiness` in step."""

    def __init__(self, readiness: Readiness, announce: Announce) -> None:
        self._readiness = readiness
        self._announce = announce
        self._started = time.monotonic()

    @contextmanager
    def stage(self, name: str, what: str) -> Iterator[None]:
        """Run one stage of `Readiness`; it is passed when the block ends without an error."""
        self._readiness.failed(name, f"{what}: in progress")
        start = time.monotonic()
        try:
            yield
        except BaseException as error:
            self._readiness.failed(name, str(error) or type(error).__name__)
            raise
        self._readiness.passed(name)
        self._announce(f"[{time.monotonic() - start:5.1f} s] {what}")

    def done(self, what: str) -> None:
        """The last line: the whole start."""
        self._announce(f"[{time.monotonic() - self._started:5.1f} s] {what}")
