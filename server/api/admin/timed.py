"""Routes of the admin port that answer within their time limit even when the store or the engine hangs."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from incomes_plugin.errors import NotReady

DEFAULT_TIMEOUT_S = 30.0
LONG_PATHS = ("/import", "/files")
GRACE_S = 1.0
"""At the caller's timeout a route begins to write its answer, which says how far a write has come. It gets this many
seconds more to finish."""


class TimedRoute(APIRoute):
    """Answers 503 a moment after the caller's `timeout_s`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, under a time limit."""
        handler = super().get_route_handler()

        async def timed(request: Request) -> Response:
            async with answered_within(_limit_s(request)):
                return await handler(request)

        return timed


@asynccontextmanager
async def answered_within(limit_s: float) -> AsyncIterator[None]:
    """Raises NotReady when the block takes longer: what it waits for hangs."""
    try:
        async with asyncio.timeout(limit_s):
            yield
    except TimeoutError:
        raise NotReady(
            f"no answer from the edit store within {limit_s:g} s; a write may be done or not: send it again "
            "with the same Idempotency-Key"
        ) from None


def _limit_s(request: Request) -> float:
    """Seconds that a route may take. Imports may take longer: they wait for the queue for up to `max_wait_s`, and then
    for the caller's timeout. What they ask of the store has a limit of its own each time (imports.py). Uploads are
    stored while they arrive."""
    longest_s: float = request.app.state.context.settings.max_wait_s
    try:
        timeout_s = float(request.query_params.get("timeout_s", DEFAULT_TIMEOUT_S))
    except ValueError:
        timeout_s = DEFAULT_TIMEOUT_S  # the route refuses it
    timeout_s = min(timeout_s, longest_s) if math.isfinite(timeout_s) and timeout_s > 0 else DEFAULT_TIMEOUT_S
    return timeout_s + GRACE_S + (longest_s if request.url.path.endswith(LONG_PATHS) else 0.0)
