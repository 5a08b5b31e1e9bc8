"""Reads the body of a request before any other code sees it, and checks three things: its size, the time it takes, and
that it is proper JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from incomes_server.api.http.errors import error_response
from incomes_server.api.http.json_body import load_json
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from incomes_plugin.errors import BodyTooLarge, IncomesError, RequestTimeout
from incomes_plugin.telemetry import TRACEPARENT, traceparent

IN_THREAD_BYTES = 1 << 16
"""Larger bodies are checked in a thread, so that the event loop does not stand still meanwhile."""


@dataclass(frozen=True)
class BodyLimits:
    """What a body may be.

    Attributes:
        max_bytes: of a request by its path.
        timeout_s: for the whole body to arrive.
        raw_paths: whose bodies are no JSON documents.
        streamed_paths: whose bodies are read by the route, piece by piece; each piece has `timeout_s` to arrive.
    """

    max_bytes: Callable[[str], int]
    timeout_s: float
    raw_paths: frozenset[str] = frozenset()
    streamed_paths: frozenset[str] = frozenset()


class BodyMiddleware:
    """Pure ASGI, behind authentication: of a caller without a key only the headers are read."""

    def __init__(self, app: ASGIApp, limits: BodyLimits) -> None:
        self.app = app
        self.limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on with its body in one piece, or refuse it."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        if scope["path"] in self.limits.streamed_paths:
            return await self.app(scope, self._limited(scope, receive), send)
        try:
            body = await self._read(scope, receive)
            if body and scope["path"] not in self.limits.raw_paths:
                await _check_json(body)
                scope = _as_json(scope)
        except IncomesError as error:
            return await error_response(error)(scope, receive, send)
        if body is not None:
            await self.app(scope, replay(body, receive), send)

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        """`receive` within the limits. What it raises is answered as an error of the route."""
        limit, size = self.limits.max_bytes(scope["path"]), 0

        async def limited() -> Message:
            nonlocal size
            try:
                async with asyncio.timeout(self.limits.timeout_s):
                    message = await receive()
            except TimeoutError:
                raise self._too_slow() from None
            size += len(message.get("body", b""))
            if size > limit:
                raise _too_large(limit)
            return message

        return limited

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """The body; None when the client went away. Raises BodyTooLarge, RequestTimeout."""
        limit = self.limits.max_bytes(scope["path"])
        announced = int(Headers(scope=scope).get("content-length", "0"))
        if announced > limit:
            raise BodyTooLarge(f"the request body has {announced} bytes, this route takes {limit}; send it in parts")
        try:
            async with asyncio.timeout(self.limits.timeout_s):
                return await _collect(receive, limit)
        except TimeoutError:
            raise self._too_slow() from None

    def _too_slow(self) -> RequestTimeout:
        return RequestTimeout(
            f"the request body did not arrive within {self.limits.timeout_s:g} s (setting `body_timeout_s`)"
        )


def replay(body: bytes, receive: Receive) -> Receive:
    """Gives the body first and then whatever the client sends, by which a handler notices that the client has gone
    away."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return first.pop() if first else await receive()

    return replayed


def with_body_length(scope: Scope, body: bytes) -> Scope:
    """The scope of a request whose body is this one now."""
    inner = {**scope, "headers": list(scope["headers"])}
    headers = MutableHeaders(scope=inner)
    headers["content-length"] = str(len(body))
    if (own := traceparent()) is not None:  # vLLM puts its spans under the request's, not beside it
        headers[TRACEPARENT] = own
    del headers["transfer-encoding"]
    return inner


async def _collect(receive: Receive, limit: int) -> bytes | None:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if len(body) > limit:
            raise _too_large(limit)
        if not message.get("more_body", False):
            return bytes(body)


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the request body has more than {limit} bytes, this route takes no more; send it in parts")


async def _check_json(body: bytes) -> None:
    if len(body) > IN_THREAD_BYTES:
        await asyncio.to_thread(load_json, body)
    else:
        load_json(body)


def _as_json(scope: Scope) -> Scope:
    """Treat a body without a content type as JSON: the routes take nothing else."""
    inner = {**scope, "headers": list(scope["headers"])}
    MutableHeaders(scope=inner).setdefault("content-type", "application/json")
    return inner
