"""Sockets and HTTP servers: bound before the engine loads, so that a taken port fails at once."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from incomes_plugin.errors import InvalidValue


@dataclass(frozen=True)
class HttpLimits:
    """Time limits of connections.

    Attributes:
        header_timeout_s: for the head of a request, from the connection's first moment or the head's first byte.
        drain_s: seconds that running answers get at shutdown.
    """

    header_timeout_s: float
    drain_s: float


class QuietServer(uvicorn.Server):
    """Does not handle signals: `serve` does, and stops both ports in order."""

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
async def http_server(
    apps: Mapping[socket.socket, ASGIApp], limits: HttpLimits, *, log_level: str
) -> AsyncIterator[None]:
    """Serve an app on each socket inside the block; on exit all of them drain at the same time."""
    servers = {sock: QuietServer(_config(app, limits, log_level)) for sock, app in apps.items()}
    tasks = [asyncio.create_task(server.serve(sockets=[sock])) for sock, server in servers.items()]
    try:
        while not all(server.started for server in servers.values()):
            for task in tasks:
                if task.done():
                    await task
                    raise RuntimeError("an HTTP server stopped while starting")
            await asyncio.sleep(0.01)
        yield
    finally:
        for server in servers.values():
            server.should_exit = True
        await asyncio.gather(*tasks)


def _config(app: ASGIApp, limits: HttpLimits, log_level: str) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=_with_header_timeout(limits.header_timeout_s),
        log_config=None,
        log_level=log_level,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, round(limits.drain_s)),
    )


def _with_header_timeout(timeout_s: float) -> Any:
    """uvicorn's protocol, which by itself waits for ever for the end of a request's head."""

    class TimedProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
        deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait_for_head()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is None or self.cycle.response_complete:
                self._wait_for_head()
            else:
                self._stop_waiting()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

        def _wait_for_head(self) -> None:
            if self.deadline is None:
                self.deadline = self.loop.call_later(timeout_s, self.transport.close)

        def _stop_waiting(self) -> None:
            if self.deadline is not None:
                self.deadline.cancel()
                self.deadline = None

    return TimedProtocol
