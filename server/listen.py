"""Sockets and HTTP servers: bound before the engine loads, so that a taken port fails at once."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import uvicorn
from starlette.types import ASGIApp

from incomes_plugin.errors import InvalidValue


class QuietServer(uvicorn.Server):
    """Leaves the signals to `serve`, which stops both ports in order."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install nothing."""
        yield


def bind(host: str, port: int, setting: str) -> socket.socket:
    """A bound socket that does not listen yet.

    Raises:
        InvalidValue: the address is taken or not ours.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise InvalidValue(f"cannot listen on {host}:{port}: {error.strerror}; choose another {setting}") from error
    return sock


@contextlib.asynccontextmanager
async def http_server(app: ASGIApp, sock: socket.socket, *, log_level: str, drain_s: float) -> AsyncIterator[None]:
    """Serve `app` inside the block; on exit running answers get `drain_s` seconds."""
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level=log_level,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, round(drain_s)),
    )
    server = QuietServer(config)
    task = asyncio.create_task(server.serve(sockets=[sock]))
    while not server.started:
        if task.done():
            await task
            raise RuntimeError("the HTTP server stopped while starting")
        await asyncio.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        await task
