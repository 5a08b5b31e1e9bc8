"""Gives every request an id (the caller's `x-request-id` or a new one), a span under the caller's `traceparent`, a line
in a JSON log, and an answer even when the code behind it fails."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager

from incomes_server.api.http.errors import error_response
from incomes_server.api.http.scopes import OPEN_PATHS
from opentelemetry.trace import Span, SpanKind, get_current_span
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from incomes_plugin import telemetry
from incomes_plugin.errors import IncomesError, NotReady

logger = logging.getLogger("incomes.http")
requests = logging.getLogger("incomes.requests")
"""A line for each request; enabled with `log_format: json`."""

HEADER = "x-request-id"
NAMED_SEGMENTS = 3
"""Of a path, in names of spans: `/v1/edits`, without the id that may follow."""
_SAFE = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class RequestIdMiddleware:
    """Pure ASGI, outermost of both ports, so that errors carry the id too."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Set `state.request_id` and the response header; a defect becomes a 500 in the envelope."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        given = Headers(scope=scope).get(HEADER, "")
        request_id = given if _SAFE.fullmatch(given) else "req_" + secrets.token_hex(12)
        scope.setdefault("state", {})["request_id"] = request_id
        if scope["path"] in OPEN_PATHS:
            return await self._answer(scope, receive, send, request_id)
        with _observed(scope, request_id):
            await self._answer(scope, receive, send, request_id)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        started = complete = False

        async def send_with_id(message: Message) -> None:
            nonlocal started, complete
            if message["type"] == "http.response.start":
                started = True
                scope["state"]["status"] = message["status"]
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)
            complete = message["type"] == "http.response.body" and not message.get("more_body", False)

        try:
            await self.app(scope, receive, send_with_id)
        except asyncio.CancelledError:
            if not started:  # the server is stopping and the time for running answers is over
                await error_response(NotReady("the server is stopping; send the request again"))(
                    scope, receive, send_with_id
                )
            raise
        except Exception as error:
            logger.exception("%s: a request failed", request_id)
            if complete:
                return
            if started:  # too late for another answer: the connection ends, so nobody takes half of one for a whole
                raise
            bug = IncomesError(f"internal error ({type(error).__name__}); the server's log has it under {request_id}")
            await error_response(bug)(scope, receive, send_with_id)


@contextmanager
def _observed(scope: Scope, request_id: str) -> Iterator[None]:
    """A span for the request, its id in every line that is logged meanwhile, and a line at its end."""
    token = telemetry.request_id_var.set(request_id)
    start_s = time.monotonic()
    context = telemetry.context_of_headers(Headers(scope=scope))
    name = f"{scope['method']} {'/'.join(scope['path'].split('/')[:NAMED_SEGMENTS])}"
    try:
        with telemetry.span(name, context=context, kind=SpanKind.SERVER, request_id=request_id):
            try:
                yield
            finally:
                _finish(get_current_span(), scope, start_s)
    finally:
        telemetry.request_id_var.reset(token)


def _finish(current: Span, scope: Scope, start_s: float) -> None:
    status = scope["state"].get("status", 0)
    current.set_attribute("http.request.method", scope["method"])
    current.set_attribute("http.response.status_code", status)
    if status >= 500:
        telemetry.fail(current, str(status))
    said = {
        "method": scope["method"],
        "path": scope["path"],
        "status": status,
        "duration_ms": round(1000 * (time.monotonic() - start_s), 1),
    }
    project = scope["state"].get("project")
    requests.info("request", extra=said if project is None else {**said, "project": project})
