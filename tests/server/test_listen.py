"""Ports: a taken one fails before anything is loaded; the server leaves the socket free."""

import httpx
import pytest
from incomes_server.listen import bind, http_server
from starlette.responses import PlainTextResponse

from incomes_plugin.errors import InvalidValue


def test_a_taken_port_is_named():
    with bind("127.0.0.1", 0, "--port") as sock:
        sock.listen()
        port = sock.getsockname()[1]
        with pytest.raises(InvalidValue, match=f"{port}.*--admin-port"):
            bind("127.0.0.1", port, "--admin-port")


async def test_serves_inside_the_block_only():
    sock = bind("127.0.0.1", 0, "--port")
    url = f"http://127.0.0.1:{sock.getsockname()[1]}/"
    async with httpx.AsyncClient() as client:
        async with http_server(PlainTextResponse("hello"), sock, log_level="warning", drain_s=1):
            assert (await client.get(url)).text == "hello"
        with pytest.raises(httpx.ConnectError):
            await client.get(url)
