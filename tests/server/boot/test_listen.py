"""Ports: a taken one fails before anything is loaded; the server leaves the socket free."""

import asyncio
import time

import httpx
import pytest
from incomes_server.boot.listen import HttpLimits, bind, http_server
from starlette.responses import PlainTextResponse

from incomes_plugin.errors import InvalidValue


def test_a_taken_port_is_named():
    with bind("127.0.0.1", 0, "--port") as sock:
        sock.listen()
        port = sock.getsockname()[1]
        with pytest.raises(InvalidValue, match=f"{port}.*--admin-port"):
            bind("127.0.0.1", port, "--admin-port")


LIMITS = HttpLimits(header_timeout_s=0.3, drain_s=1)


def url_of(sock):
    return f"http://127.0.0.1:{sock.getsockname()[1]}/"


async def test_serves_inside_the_block_only():
    sock = bind("127.0.0.1", 0, "--port")
    url = url_of(sock)
    async with httpx.AsyncClient() as client:
        async with http_server({sock: PlainTextResponse("hello")}, LIMITS, log_level="warning"):
            assert (await client.get(url)).text == "hello"
        with pytest.raises(httpx.ConnectError):
            await client.get(url)


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nhost: x\r\n"])
@pytest.mark.parametrize("after_an_answer", [False, True])
async def test_a_head_that_stalls_ends_the_connection(sent, after_an_answer):
    if after_an_answer and not sent:
        pytest.skip("an idle connection is kept alive by uvicorn's own rule")
    sock = bind("127.0.0.1", 0, "--port")
    async with http_server({sock: PlainTextResponse("hello")}, LIMITS, log_level="warning"):
        reader, writer = await asyncio.open_connection(*sock.getsockname())
        if after_an_answer:
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            await reader.readuntil(b"hello")
        writer.write(sent)
        async with asyncio.timeout(2):
            assert b"200 OK" not in await reader.read()
        writer.close()


async def test_a_slow_answer_is_not_cut():
    async def slow(scope, receive, send):
        if scope["type"] == "lifespan":  # uvicorn asks at its start, and waits for the answer
            return
        await asyncio.sleep(0.6)
        await PlainTextResponse("late")(scope, receive, send)

    sock = bind("127.0.0.1", 0, "--port")
    async with http_server({sock: slow}, LIMITS, log_level="warning"), httpx.AsyncClient() as client:
        assert (await client.get(url_of(sock))).text == "late"
        assert (await client.get(url_of(sock))).text == "late"


async def test_all_ports_drain_at_the_same_time():
    begun = []

    async def endless(scope, receive, send):
        if scope["type"] == "lifespan":
            return
        begun.append(scope)
        await asyncio.Event().wait()

    limits = HttpLimits(header_timeout_s=5, drain_s=3)
    socks = [bind("127.0.0.1", 0, "--port") for _ in range(2)]
    async with httpx.AsyncClient() as client:
        async with http_server(dict.fromkeys(socks, endless), limits, log_level="critical"):
            calls = [asyncio.create_task(client.get(url_of(sock))) for sock in socks]
            async with asyncio.timeout(30):
                while len(begun) < len(calls):
                    await asyncio.sleep(0.01)
            start_s = time.monotonic()
        assert time.monotonic() - start_s < 2 * limits.drain_s
        await asyncio.gather(*calls, return_exceptions=True)
