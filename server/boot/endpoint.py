"""One address for all engines of a cluster: a Ray Serve deployment, each replica of which runs an `incomes serve`.

client ─► Serve's HTTP proxy ─► replica (pass on, stream back) ─► chat port of its engine, on loopback ─► gate, vLLM

`serve run incomes_server.boot.endpoint:build config=/etc/incomes.yaml`, or `importPath` of a RayService. Replicas take
requests when its engine is ready; Serve starts and ends replicas by the number of running requests. Needs `ray[serve]`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any

import httpx
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from incomes_server.api.http.errors import error_response
from incomes_server.boot.startup import STOP_S
from pydantic import BaseModel, ConfigDict, Field

from incomes_plugin.errors import NotReady
from incomes_plugin.orphans import guard_children

logger = logging.getLogger("incomes.endpoint")

READY_LINE = "chat http://"
HOP_BY_HOP = frozenset({"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "host"})
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
CONNECT_S = 5.0
HEALTH_EVERY_S = 1.0


class EndpointArgs(BaseModel):
    """What `build` takes.

    Attributes:
        config: settings file of every engine, with `ray_address` of this cluster and `edit_store`.
        flags: vLLM's flags.
        min_engines, max_engines: bounds of their number.
        requests_an_engine: running requests that one shall have; more start another engine, fewer end one.
        num_cpus, num_gpus: what Ray reserves for each.
        drain_s: running answers of an engine that ends have so long.
    """

    model_config = ConfigDict(extra="forbid")

    config: str
    flags: list[str] = []
    min_engines: int = Field(1, ge=1)
    max_engines: int = Field(1, ge=1)
    requests_an_engine: float = Field(8.0, gt=0)
    num_cpus: float = Field(1.0, ge=0)
    num_gpus: float = Field(0.0, ge=0)
    drain_s: float = Field(30.0, gt=0)


class ServedEngine:
    """An `incomes serve` as a child of a Serve replica: it is ready before the replica is, and ends with it."""

    process: subprocess.Popen[str] | None = None

    async def start(self, config: str, flags: list[str]) -> None:
        """Start it and wait until it is ready. Raises NotReady: it ended, or is not."""
        guard_children()
        ports = [_free_port(), _free_port()]
        command = [sys.executable, "-m", "incomes_server.cli", "serve", "--config", config]
        command += ["--port", str(ports[0]), "--admin-port", str(ports[1]), "--", *flags]
        own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_") or "AUTH" in name}
        # Not asyncio's: Serve runs this in a loop that is not the main thread's, where SIGCHLD does not come.
        self.process = process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=own | {"PYTHONUNBUFFERED": "1"}
        )
        if not await asyncio.to_thread(_is_up, process):
            raise NotReady(f"the engine ended while it started, with status {process.wait()}; its log says why")
        threading.Thread(target=_log_lines, args=(process,), daemon=True).start()
        self.url = f"http://127.0.0.1:{ports[0]}"
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        self.http = httpx.AsyncClient(timeout=httpx.Timeout(None, connect=CONNECT_S), limits=limits)
        if (await self.http.get(f"{self.url}/readyz")).status_code != 200:
            raise NotReady("the engine is up and not ready; its /readyz and its log say why")

    async def check_health(self) -> None:
        """Raise when only a restart helps: it ended, or says so."""
        if self.process is None or self.process.poll() is not None:
            raise NotReady("the engine has ended")
        answer = await self.http.get(f"{self.url}/livez", timeout=30)
        answer.raise_for_status()

    async def pass_on(self, request: Request) -> Response:
        """Its answer, as it comes. One that has not begun is a refusal that may be sent again."""
        headers = [(k, v) for k, v in request.headers.raw if k.decode().lower() not in HOP_BY_HOP]
        url = httpx.URL(self.url, path=request.url.path, query=request.url.query.encode())
        sent = self.http.build_request(request.method, url, headers=headers, content=request.stream())
        try:
            answer = await self.http.send(sent, stream=True)
        except httpx.TransportError as error:
            logger.warning("an engine does not answer: %s", type(error).__name__)
            return error_response(NotReady("this engine has just ended; send the request again, to another"))
        kept = {k: v for k, v in answer.headers.items() if k.lower() not in HOP_BY_HOP}
        return StreamingResponse(_body_of(answer), answer.status_code, kept)

    def stop(self, drain_s: float) -> None:
        """End it as an operator does, and wait; it drains by itself."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(drain_s + STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()


def _is_up(process: subprocess.Popen[str]) -> bool:
    """Read its lines until it serves; False: it ended before."""
    return any(READY_LINE in line for line in process.stdout or ())


def _log_lines(process: subprocess.Popen[str]) -> None:
    for line in process.stdout or ():
        logger.info("%s", line.rstrip())


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def _body_of(answer: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for piece in answer.aiter_raw():
            yield piece
    finally:
        await answer.aclose()


def build(args: dict[str, Any]) -> Any:
    """The application, as Serve's configuration names it."""
    from ray import serve

    how = EndpointArgs.model_validate(args)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @serve.deployment(
        name="engine",
        autoscaling_config={
            "min_replicas": how.min_engines,
            "max_replicas": how.max_engines,
            "target_ongoing_requests": how.requests_an_engine,
        },
        max_ongoing_requests=1_000,
        health_check_period_s=HEALTH_EVERY_S,
        health_check_timeout_s=60,
        graceful_shutdown_timeout_s=how.drain_s + 20,
        ray_actor_options={"num_cpus": how.num_cpus, "num_gpus": how.num_gpus},
    )
    @serve.ingress(app)
    class Engine:
        """A replica."""

        async def __init__(self, config: str, flags: list[str], drain_s: float) -> None:  # type: ignore[misc]  # awaited
            self.engine, self.drain_s = ServedEngine(), drain_s
            await self.engine.start(config, flags)

        async def check_health(self) -> None:
            """Asked by Serve's controller; a replica whose engine is lost is replaced."""
            await self.engine.check_health()

        @app.api_route("/{path:path}", methods=METHODS)
        async def any_route(self, request: Request) -> Response:
            """Whatever the chat port serves."""
            return await self.engine.pass_on(request)

        def __del__(self) -> None:
            self.engine.stop(self.drain_s)

    deployed: Any = Engine
    return deployed.bind(how.config, how.flags, how.drain_s)
