"""Bodies: limited before they are read, complete in time, JSON that holds; a defect still answers in the envelope."""

import asyncio
import json

import httpx
import pytest
from incomes_server.api.http.body import BodyLimits, BodyMiddleware
from incomes_server.api.http.request_id import RequestIdMiddleware
from incomes_server.boot.listen import HttpLimits, bind, http_server
from starlette.requests import Request
from starlette.responses import PlainTextResponse

LIMITS = BodyLimits(lambda path: 1000, timeout_s=0.2, raw_paths=frozenset({"/raw"}))


async def echo(scope, receive, send):
    request = Request(scope, receive)
    if scope["path"] == "/bug":
        raise RuntimeError("a defect")
    await PlainTextResponse(await request.body())(scope, receive, send)


def client(app):
    transport = httpx.ASGITransport(RequestIdMiddleware(app), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://server")


def check(answer, status, code):
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["code"] == code
    assert answer.headers["x-request-id"]


async def test_json_passes_in_one_piece():
    async with client(BodyMiddleware(echo, LIMITS)) as http:
        assert (await http.post("/", content=b'{"a": 1}')).text == '{"a": 1}'
        assert (await http.post("/raw", content=b"no json")).text == "no json"
        assert (await http.get("/")).text == ""


@pytest.mark.parametrize("body", [b'"\\ud800"', b"[" * 900, b"{"])
async def test_what_is_no_json_is_refused(body):
    async with client(BodyMiddleware(echo, LIMITS)) as http:
        check(await http.post("/", content=body), 400, "invalid_value")


async def test_a_body_that_is_announced_too_large_is_not_read():
    async def receive():
        raise AssertionError("the body was read")

    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"content-length", b"1001")]}
    await BodyMiddleware(echo, LIMITS)(scope, receive, send)
    assert sent[0]["status"] == 413
    assert json.loads(sent[1]["body"])["error"]["code"] == "body_too_large"


async def test_a_body_that_is_not_announced_is_limited_too():
    async def chunks():
        for _ in range(11):
            yield b"x" * 100

    async with client(BodyMiddleware(echo, LIMITS)) as http:
        check(await http.post("/raw", content=chunks()), 413, "body_too_large")


async def test_a_body_that_stalls():
    async def chunks():
        yield b"{"
        await asyncio.sleep(5)

    async with client(BodyMiddleware(echo, LIMITS)) as http:
        check(await http.post("/", content=chunks()), 408, "request_timeout")


async def test_a_defect_has_envelope_and_id_and_the_connection_lives():
    sock = bind("127.0.0.1", 0, "--port")
    port = sock.getsockname()[1]
    limits = HttpLimits(header_timeout_s=5, drain_s=1)
    apps = {sock: RequestIdMiddleware(BodyMiddleware(echo, LIMITS))}
    client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}")
    async with http_server(apps, limits, log_level="critical"), client as http:
        check(await http.get("/bug"), 500, "internal_error")
        before = http._transport._pool.connections
        assert (await http.post("/", content=b"1")).text == "1"
        assert http._transport._pool.connections == before
