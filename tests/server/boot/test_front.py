"""Before Serve's application: what is sent again, what is refused, and how a broken stream ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from incomes_server.boot import front
from incomes_server.boot.front import HAD_IT, LOST_HEADER, MOST_DEATHS, NEVER_HAD_IT, REPLAY_BYTES, OtherEngine

Messages = list[dict[str, Any]]
BODY = [b'{"model": ', b'"incomes"}']
ANSWER = (200, [(b"content-type", b"application/json")], [b"{}"])


class Engines:
    """Serve's application, by what happens at each try: None = the replica dies; or status, headers, pieces.

    A `...` among the pieces is the death of the replica while it answers.
    """

    def __init__(self, *tries: Any) -> None:
        self.tries = list(tries)
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message["body"], message.get("more_body", False)
        self.bodies.append(body)
        found = self.tries.pop(0) if len(self.tries) > 1 else self.tries[0]
        if found is None:
            return
        status, headers, pieces = found
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for n, piece in enumerate(pieces):
            if piece is ...:
                return
            await send({"type": "http.response.body", "body": piece, "more_body": n + 1 < len(pieces)})


def ask(engines: Callable[..., Any], body: list[bytes] = BODY, *, leaves: bool = False) -> Messages:
    """What a client gets; one that leaves does so when its body has arrived."""
    sent: Messages = []
    arriving: Messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in body]
    arriving += [{"type": "http.disconnect"}] if leaves else [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> dict[str, Any]:
        if not arriving:
            await asyncio.Event().wait()
        return arriving.pop(0)

    async def send(message: Any) -> None:
        sent.append(dict(message))

    asyncio.run(OtherEngine(engines)({"type": "http", "method": "POST", "path": "/"}, receive, send))
    return sent


def status_and_body(sent: Messages) -> tuple[int, bytes]:
    """It is one answer, and it has an end."""
    assert [message["type"] for message in sent].count("http.response.start") == 1
    assert not sent[-1].get("more_body", False)
    return sent[0]["status"], b"".join(message["body"] for message in sent[1:])


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests do not wait as long as clients do."""
    monkeypatch.setattr(front, "PAUSE_S", 0.01)


LOST = (503, [(LOST_HEADER.encode(), HAD_IT.encode())], [b"gone"])
NOT_THERE = (503, [(LOST_HEADER.encode(), NEVER_HAD_IT.encode())], [b"gone"])


@pytest.mark.parametrize("failures", [[None], [LOST], [NOT_THERE] * 4, [NOT_THERE, LOST, NOT_THERE]])
def test_a_request_whose_engine_died_goes_to_another_with_the_same_body(failures: list[Any]) -> None:
    engines = Engines(*failures, ANSWER)
    assert status_and_body(ask(engines)) == (200, b"{}")
    assert engines.bodies == [b"".join(BODY)] * (len(failures) + 1)


@pytest.mark.parametrize("failure", [None, LOST, NOT_THERE])
def test_at_last_it_is_refused_as_what_may_be_sent_again(failure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "TRY_FOR_S", 0.5)
    engines = Engines(failure)
    sent = ask(engines)
    status, body = status_and_body(sent)
    assert status == 503
    assert body == b"gone" if failure else json.loads(body)["error"]["code"] == "engine_lost"
    assert (b"retry-after", b"1") in sent[0]["headers"]
    assert len(engines.bodies) > 1


@pytest.mark.parametrize("death", [None, LOST])
def test_a_request_that_ends_engines_is_not_sent_to_all_of_them(death: Any) -> None:
    engines = Engines(NOT_THERE, *[death] * 10)
    assert status_and_body(ask(engines))[0] == 503
    assert len(engines.bodies) == 1 + MOST_DEATHS


def test_an_error_of_the_engine_is_no_death() -> None:
    for status in (400, 500, 503):
        engines = Engines((status, [], [b"no"]))
        assert status_and_body(ask(engines)) == (status, b"no")
        assert len(engines.bodies) == 1


def test_serve_s_own_503_gets_a_time() -> None:
    assert (b"retry-after", b"1") in ask(Engines((503, [], [b"no replica"])))[0]["headers"]
    own = (503, [(b"retry-after", b"7")], [b"later"])
    assert ask(Engines(own))[0]["headers"] == [(b"retry-after", b"7")]


def test_a_stream_that_breaks_ends_with_an_error_that_a_client_reads() -> None:
    events = (200, [(b"content-type", b"text/event-stream; charset=utf-8")], [b'data: {"a": 1}\n\n', ...])
    status, body = status_and_body(ask(Engines(events, ANSWER)))
    *_, last = [line for line in body.decode().splitlines() if line]
    assert status == 200
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "engine_lost"


def test_half_of_another_answer_stays_half() -> None:
    """Its length, or the missing end of its chunks, says so: nothing may be appended to it."""
    sent = ask(Engines((200, [(b"content-type", b"application/json")], [b'{"a', ...]), ANSWER))
    assert [message.get("body") for message in sent] == [None, b'{"a']
    assert sent[-1]["more_body"]


def test_what_is_too_long_to_be_kept_arrives_whole_and_is_not_sent_again() -> None:
    long = [b"x" * REPLAY_BYTES, b"y" * 10]
    engines = Engines(ANSWER)
    assert status_and_body(ask(engines, long)) == (200, b"{}")
    assert engines.bodies == [b"".join(long)]
    engines = Engines(None, ANSWER)
    assert status_and_body(ask(engines, long))[0] == 503
    assert len(engines.bodies) == 1


def test_nobody_is_answered_who_has_gone() -> None:
    engines = Engines(None, ANSWER)
    assert ask(engines, leaves=True) == []
    assert engines.bodies == []
