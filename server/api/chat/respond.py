"""Adds to vLLM's answers what the request asked for: headers always, attribution as JSON field or stream event."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from incomes_server.api.http.errors import envelope, error_response, status_of
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import Message, Send

from incomes_plugin.errors import EngineLost, IncomesError

DONE_EVENT = b"data: [DONE]"
STAMP = ("id", "object", "created", "model")
Attribute = Callable[[Sequence[int]], Awaitable[dict[str, Any]]]
"""Fetches the `edits` object of an answer with these choices; called once the engine is done with the request."""


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
    """Turns vLLM's 500 into `engine_lost` when the engine has died while the request was running."""

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
    """Adds `edits` to a successful answer: a key of the JSON body, or one more event of the stream.

    In a stream the event comes after the last choice and before the usage, whose event has `edits` too. The choices of
    the event carry their part in `delta`, where clients that put a stream together (the openai package's helper) keep
    it as `message.edits`.
    """

    def __init__(self, send: Send, attribute: Attribute) -> None:
        self._send = send
        self._attribute = attribute
        self._start: Message | None = None
        self._json = bytearray()
        self._buffer = b""
        self._usage: dict[str, Any] | None = None
        self._streams = False
        self._stamp: dict[str, Any] = {}
        self._choices: set[int] = set()

    async def __call__(self, message: Message) -> None:
        """Send one ASGI message; a JSON answer is held back until it is complete."""
        if message["type"] == "http.response.start":
            await self._on_start(message)
        elif self._start is not None:
            await self._on_json(message)
        elif self._streams:
            await self._on_stream(message)
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
            answer["edits"] = await self._attribute([choice["index"] for choice in answer["choices"]])
        except IncomesError as error:
            self._start["status"], answer = status_of(error), envelope(error)
        body = json.dumps(answer, ensure_ascii=False).encode()
        MutableHeaders(scope=self._start)["content-length"] = str(len(body))
        await self._send(self._start)
        await self._send({"type": "http.response.body", "body": body})

    async def _on_stream(self, message: Message) -> None:
        """Take a piece of the stream. An event may arrive in several pieces."""
        *events, self._buffer = (self._buffer + message.get("body", b"")).split(b"\n\n")
        more = message.get("more_body", False)
        body = b"".join([await self._on_event(event) for event in events])
        if not more:
            body += self._buffer
        if body or not more:
            await self._send({**message, "body": body})

    async def _on_event(self, event: bytes) -> bytes:
        """The event as it is passed on; behind the last one our own event is added."""
        if event == DONE_EVENT:
            return b"".join([_event(line) for line in await self._last_events()]) + event + b"\n\n"
        if event.startswith(b"data: {"):
            data = json.loads(event.removeprefix(b"data: "))
            self._stamp = self._stamp or {key: data[key] for key in STAMP if key in data}
            self._choices |= {choice["index"] for choice in data.get("choices", ())}
            if data.get("choices") == [] and data.get("usage"):
                self._usage = data
                return b""
        return event + b"\n\n"

    async def _last_events(self) -> list[Mapping[str, Any]]:
        try:
            edits = await self._attribute(sorted(self._choices))
        except IncomesError as error:
            return [envelope(error)]
        is_chat = self._stamp.get("object") == "chat.completion.chunk"
        choices = [with_edits(choice) for choice in edits.get("choices", ())] if is_chat else []
        events: list[Mapping[str, Any]] = [{**self._stamp, "choices": choices, "edits": edits}]
        return events if self._usage is None else [*events, {**self._usage, "edits": edits}]


def with_edits(choice: Mapping[str, Any]) -> dict[str, Any]:
    """A choice of a chat's stream that carries its part of the `edits` object."""
    part = {key: value for key, value in choice.items() if key != "index"}
    return {"index": choice["index"], "delta": {"edits": part}, "finish_reason": None, "logprobs": None}


def _event(data: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\n\n"
