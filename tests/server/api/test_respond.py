"""Attribution in JSON answers and streams, byte by byte."""

import json

import pytest
from incomes_server.api.chat.respond import AttributionSender, HeaderSender

EDITS = {"edit_set": "eset_1", "applied": []}


async def run(content_type, *bodies, status=200):
    sent = []

    async def send(message):
        sent.append(message)

    async def attribute():
        return EDITS

    sender = AttributionSender(HeaderSender(send, {"x-incomes-edits": "1"}), attribute)
    headers = [(b"content-type", content_type.encode()), (b"content-length", b"1")]
    await sender({"type": "http.response.start", "status": status, "headers": headers})
    for i, body in enumerate(bodies):
        await sender({"type": "http.response.body", "body": body, "more_body": i + 1 < len(bodies)})
    return sent


def body_of(sent):
    return b"".join(m["body"] for m in sent if m["type"] == "http.response.body")


async def test_json_answer():
    sent = await run("application/json", b'{"id": "c1", ', b'"choices": []}')
    body = body_of(sent)
    assert json.loads(body) == {"id": "c1", "choices": [], "edits": EDITS}
    headers = dict(sent[0]["headers"])
    assert headers[b"content-length"] == str(len(body)).encode()
    assert headers[b"x-incomes-edits"] == b"1"


async def test_an_error_is_not_touched():
    sent = await run("application/json", b'{"error": {}}', status=400)
    assert body_of(sent) == b'{"error": {}}'


@pytest.mark.parametrize("joined", [False, True])
async def test_stream_gets_one_event_before_done(joined):
    chunks = [
        b'data: {"id": "c1", "object": "chat.completion.chunk", "created": 5, "model": "m", "choices": [1]}\n\n',
        b"data: [DONE]\n\n",
    ]
    sent = await run("text/event-stream; charset=utf-8", *([b"".join(chunks)] if joined else chunks))
    events = body_of(sent).decode().strip().split("\n\n")
    assert len(events) == 3
    assert events[2] == "data: [DONE]"
    event = json.loads(events[1].removeprefix("data: "))
    assert (event["id"], event["object"], event["choices"], event["edits"]) == (
        "c1",
        "chat.completion.chunk",
        [],
        EDITS,
    )
