"""Adds to vLLM's answers what the request asked for: headers always, attribution as JSON field or last stream event."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from incomes_server.api.errors import envelope, error_response, status_of
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import Message, Send

from incomes_plugin.errors import EngineLost, IncomesError

DONE_EVENT = b"data: [DONE]"
Attribute = Callable[[], Awaitable[dict[str, Any]]]
"""Fetches the `edits` object of the answer; called once the engine is done with the request."""


class HeaderSender:
    """Passes an answer on unchanged, with headers added."""

    def __init__(self, send: Send, headers: Mapping[str, str]) -> None:
        self._send = send
        self._headers = headers

    async def __call__(self, message: Message) -> None:
        """Send one ASGI message."""
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(self._headers)
        await self._send(message)


class LossSender:
    """Turns vLLM's 500 into `engine_lost` when the engine has died under the request."""

    def __init__(self, send: Send, loss: Callable[[], str | None]) -> None:
        self._send = send
        self._loss = loss
        self._replaced = False

    async def __call__(self, message: Message) -> None:
        """Send one ASGI message, or the error in place of all of them."""
        if message["type"] == "http.response.start" and message["status"] >= 500 and (reason := self._loss()):
            self._replaced = True
            answer = error_response(EngineLost(reason))
            await self._send({"type": "http.response.start", "status": 503, "headers": answer.raw_headers})
            await self._send({"type": "http.response.body", "body": answer.body})
        elif not self._replaced:
            await self._send(message)


class AttributionSender:
    """Adds `edits` to a successful answer: a key of the JSON body, or one more event before `[DONE]`."""

    def __init__(self, send: Send, attribute: Attribute) -> None:
        self._send = send
        self._attribute = attribute
        self._start: Message | None = None
        self._json = bytearray()
        self._streams = False
        self._stamp: dict[str, Any] = {}

    async def __call__(self, message: Message) -> None:
        """Send one ASGI message; a JSON answer is held back until it is complete."""
        if message["type"] == "http.response.start":
            await self._on_start(message)
        elif self._start is not None:
            await self._on_json(message)
        elif self._streams:
            await self._on_event(message)
        else:
            await self._send(message)

    async def _on_start(self, message: Message) -> None:
        content_type = Headers(raw=message["headers"]).get("content-type", "")
        if message["status"] == 200 and content_type.startswith("application/json"):
            self._start = message
            return
        self._streams = message["status"] == 200 and content_type.startswith("text/event-stream")
        await self._send(message)

    async def _on_json(self, message: Message) -> None:
        self._json += message.get("body", b"")
        if message.get("more_body", False) or self._start is None:
            return
        answer = json.loads(self._json)
        try:
            answer["edits"] = await self._attribute()
        except IncomesError as error:
            self._start["status"], answer = status_of(error), envelope(error)
        body = json.dumps(answer, ensure_ascii=False).encode()
        MutableHeaders(scope=self._start)["content-length"] = str(len(body))
        await self._send(self._start)
        await self._send({"type": "http.response.body", "body": body})

    async def _on_event(self, message: Message) -> None:
        body: bytes = message.get("body", b"")
        self._remember_stamp(body)
        before, done, after = body.rpartition(DONE_EVENT)
        if done:
            line = b"data: " + json.dumps(await self._event(), ensure_ascii=False).encode() + b"\n\n"
            message = {**message, "body": before + line + done + after}
        await self._send(message)

    async def _event(self) -> Mapping[str, Any]:
        try:
            return {**self._stamp, "choices": [], "edits": await self._attribute()}
        except IncomesError as error:
            return envelope(error)

    def _remember_stamp(self, body: bytes) -> None:
        """Id, model and time of the stream's first event: ours carries the same, so that clients can parse it."""
        if self._stamp or not body.startswith(b"data: {"):
            return
        first = json.loads(body.split(b"\n", 1)[0].removeprefix(b"data: "))
        self._stamp = {key: first[key] for key in ("id", "object", "created", "model") if key in first}
