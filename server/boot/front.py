"""In Serve's HTTP proxy: a request whose engine died before the first byte goes to another; a broken stream says so.

Serve answers 500 when a replica dies with a request, and cuts a stream off. Its proxies take middleware from
`RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=incomes_server.boot.front:middlewares`, in the environment of `ray start`.
Generations change nothing, so sending one again is safe.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from incomes_plugin.errors import EngineLost

logger = logging.getLogger("incomes.endpoint")

LOST_HEADER = "x-incomes-try-another"
"""Of a 503 by which a replica says that nothing was answered, and another may: NEVER_HAD_IT or HAD_IT."""

NEVER_HAD_IT, HAD_IT = "never-had-it", "had-it"
"""The engine was not there for the request, or not ready; or it died with the request, maybe of it."""

MOST_DEATHS = 2
"""Engines that may die with one request. What ends engines would else be sent to all of them in turn."""

TRY_FOR_S = 10.0
PAUSE_S = 0.25
REPLAY_BYTES = 1 << 20
"""A longer body is not kept for a second try."""


def middlewares() -> list[Middleware]:
    """What Serve's proxies take in."""
    return [Middleware(OtherEngine)]


def error_event() -> bytes:
    """The end of a stream whose engine died, as vLLM's own errors in a stream are. It has no `[DONE]`."""
    from incomes_server.api.http.errors import envelope  # Serve gives its proxies little time to start

    error = EngineLost("the engine died while it answered; the answer is not complete, send the request again")
    return b"\n\ndata: " + json.dumps(envelope(error)).encode() + b"\n\n"


class OtherEngine:
    """Tries a request again while no byte of an answer has come; at last it is 503 with Retry-After."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = _Request(receive)
        await request.read()
        if request.gone:
            return
        end_s, deaths = time.monotonic() + TRY_FOR_S, 0
        while True:
            answer = _Answer(send)
            try:
                await self.app(dict(scope), request.again(), answer)
            except Exception:
                logger.exception("Serve's proxy failed")
            if answer.done or request.gone:
                return
            if answer.begun:
                await answer.break_off()
                return
            deaths += answer.died
            if not request.whole or time.monotonic() > end_s or deaths >= MOST_DEATHS:
                await answer.refuse(scope, receive)
                return
            logger.warning("an engine is not there for a request; it goes to another")
            await asyncio.sleep(PAUSE_S)


class _Request:
    """The body of a request, kept for another try if it is short.

    Attributes:
        whole: all of it is here.
        gone: the client is.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive, self._body = receive, b""
        self.whole = self.gone = False

    async def read(self) -> None:
        """Read it as far as it is kept."""
        while not self.whole and not self.gone and len(self._body) <= REPLAY_BYTES:
            message = await self._next()
            self._body += message.get("body", b"")
            self.whole = not message.get("more_body", False)

    def again(self) -> Receive:
        """It from the start."""
        first = True

        async def receive() -> Message:
            nonlocal first
            if first:
                first = False
                return {"type": "http.request", "body": self._body, "more_body": not self.whole}
            return await self._next()

        return receive

    async def _next(self) -> Message:
        message = await self._receive()
        self.gone = self.gone or message["type"] == "http.disconnect"
        return message


class _Answer:
    """Passes an answer on, but for a replica's word that its engine is gone.

    Attributes:
        begun: something was passed on.
        done: all of it was.
        died: of what is not done: nobody has said that no engine had the request.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self.died = True
        self.begun = self.done = self._is_lost = self._streams = False
        self._lost: list[Message] = []

    async def __call__(self, message: Message) -> None:
        """One message of it."""
        if message["type"] == "http.response.start":
            headers = {name.lower(): value for name, value in message.get("headers", ())}
            self._is_lost = message["status"] == 503 and LOST_HEADER.encode() in headers
            self.died = headers.get(LOST_HEADER.encode()) != NEVER_HAD_IT.encode()
            self._streams = headers.get(b"content-type", b"").startswith(b"text/event-stream")
            if message["status"] == 503 and b"retry-after" not in headers:  # Serve's own
                message = {**message, "headers": [*message.get("headers", ()), (b"retry-after", b"1")]}
        if self._is_lost:
            self._lost.append(message)
            return
        await self._send(message)
        self.begun = True
        self.done = message["type"] == "http.response.body" and not message.get("more_body", False)

    async def refuse(self, scope: Scope, receive: Receive) -> None:
        """Say why there is no answer: in the replica's words if it had some."""
        for message in self._lost:
            await self._send(message)
        if not self._lost:
            from incomes_server.api.http.errors import error_response

            refusal = error_response(EngineLost("the engine died with the request; send it again"))
            await refusal(scope, receive, self._send)

    async def break_off(self) -> None:
        """End what was begun: a stream with an error that its client can read; anything else stays cut off."""
        if self._streams:
            await self._send({"type": "http.response.body", "body": error_event(), "more_body": False})
