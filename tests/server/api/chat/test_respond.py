"""Attribution in JSON answers and streams, byte by byte."""

import json

import pytest
from incomes_server.api.chat.respond import AttributionSender, HeaderSender, LossSender

EDITS = {"edit_set": "eset_1", "applied": []}


async def run(content_type, *bodies, status=200):
    sent = []

    async def send(message):
        sent.append(message)

    async def attribute(choices):
        return {**EDITS, "choices": [{"index": i, "applied": [], "none_weight": 1.0} for i in choices]}

    sender = AttributionSender(HeaderSender(send, {"x-incomes-edits": "1"}), attribute)
    headers = [(b"content-type", content_type.encode()), (b"content-length", b"1")]
    await sender({"type": "http.response.start", "status": status, "headers": headers})
    for i, body in enumerate(bodies):
        await sender({"type": "http.response.body", "body": body, "more_body": i + 1 < len(bodies)})
    return sent


def body_of(sent):
    return b"".join(m["body"] for m in sent if m["type"] == "http.response.body")


CHOICE = {"index": 0, "applied": [], "none_weight": 1.0}
FULL = {**EDITS, "choices": [CHOICE]}
STAMP = b'"id": "c1", "object": "chat.completion.chunk", "created": 5, "model": "m"'
FIRST = b"data: {" + STAMP + b', "choices": [{"index": 0, "delta": {"content": "x"}}]}\n\n'
USAGE = b"data: {" + STAMP + b', "choices": [], "usage": {"total_tokens": 3}}\n\n'
DONE = b"data: [DONE]\n\n"


def events_of(sent):
    *events, last = body_of(sent).decode().strip().split("\n\n")
    assert last == "data: [DONE]"
    return [json.loads(event.removeprefix("data: ")) for event in events]


async def test_json_answer():
    sent = await run("application/json", b'{"id": "c1", ', b'"choices": [{"index": 0}]}')
    body = body_of(sent)
    assert json.loads(body) == {"id": "c1", "choices": [{"index": 0}], "edits": FULL}
    headers = dict(sent[0]["headers"])
    assert headers[b"content-length"] == str(len(body)).encode()
    assert headers[b"x-incomes-edits"] == b"1"


async def test_an_error_is_not_touched():
    sent = await run("application/json", b'{"error": {}}', status=400)
    assert body_of(sent) == b'{"error": {}}'


@pytest.mark.parametrize("size", [1, 50, 10_000])
async def test_stream_gets_one_event_before_done(size):
    stream = FIRST + DONE
    pieces = [stream[i : i + size] for i in range(0, len(stream), size)]
    first, event = events_of(await run("text/event-stream; charset=utf-8", *pieces))
    assert first["choices"][0]["delta"] == {"content": "x"}
    assert (event["id"], event["object"], event["edits"]) == ("c1", "chat.completion.chunk", FULL)
    assert event["choices"][0]["delta"] == {"edits": {"applied": [], "none_weight": 1.0}}


async def test_usage_stays_last():
    _, event, usage = events_of(await run("text/event-stream", FIRST, USAGE, DONE))
    assert "usage" not in event
    assert (usage["usage"], usage["edits"]) == ({"total_tokens": 3}, FULL)


async def test_a_stream_that_ends_with_an_error_passes():
    sent = await run("text/event-stream", FIRST, b'data: {"error": {"message": "x"}}\n\n', b"rest")
    assert body_of(sent) == FIRST + b'data: {"error": {"message": "x"}}\n\nrest'


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_500_of_a_dead_engine_is_engine_lost(replaced):
    sent = []

    async def send(message):
        sent.append(message)

    sender = LossSender(send, lambda: "the engine died" if replaced else None)
    await sender({"type": "http.response.start", "status": 500, "headers": []})
    await sender({"type": "http.response.body", "body": b"{}"})
    assert sent[0]["status"] == (503 if replaced else 500)
    assert (b"engine_lost" in sent[1]["body"]) is replaced
