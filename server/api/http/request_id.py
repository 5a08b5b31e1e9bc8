"""Gives every request an id (the caller's `x-request-id` or a new one), and an answer even when the code behind it
fails."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets

from incomes_server.api.http.errors import error_response
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from incomes_plugin.errors import IncomesError, NotReady

logger = logging.getLogger("incomes.http")

HEADER = "x-request-id"
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
        started = complete = False

        async def send_with_id(message: Message) -> None:
            nonlocal started, complete
            if message["type"] == "http.response.start":
                started = True
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
