"""Routes of the admin port that answer in time, whatever hangs behind them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from incomes_plugin.errors import NotReady

DEFAULT_TIMEOUT_S = 30.0
GRACE_S = 1.0
"""An answer that says how far a write has come begins at the timeout; this is for what then is still to do."""


class TimedRoute(APIRoute):
    """Answers 503 a moment after the caller's `timeout_s`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, under a time limit."""
        handler = super().get_route_handler()

        async def timed(request: Request) -> Response:
            limit_s = _limit_s(request)
            try:
                async with asyncio.timeout(limit_s):
                    return await handler(request)
            except TimeoutError:
                raise NotReady(
                    f"no answer from the edit store within {limit_s:g} s; a write may be done or not: send it again "
                    "with the same Idempotency-Key"
                ) from None

        return timed


def _limit_s(request: Request) -> float:
    """Imports take their time: they wait for the queue up to `max_wait_s`, and then for the caller's timeout."""
    longest_s: float = request.app.state.context.settings.max_wait_s
    try:
        timeout_s = float(request.query_params.get("timeout_s", DEFAULT_TIMEOUT_S))
    except ValueError:
        timeout_s = DEFAULT_TIMEOUT_S  # the route refuses it
    timeout_s = min(timeout_s, longest_s) if math.isfinite(timeout_s) and timeout_s > 0 else DEFAULT_TIMEOUT_S
    return timeout_s + GRACE_S + (longest_s if request.url.path.endswith("/import") else 0.0)
