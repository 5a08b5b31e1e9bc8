"""One address for all engines of a cluster: a Ray Serve deployment, each replica of which runs an `incomes serve`.

client ─► Serve's HTTP proxy ─► replica (pass on, stream back) ─► chat port of its engine, on loopback ─► gate, vLLM

`serve run incomes_server.boot.endpoint:build config=/etc/incomes.yaml`, or `importPath` of a RayService. Replicas take
requests when its engine is ready; Serve starts and ends replicas by the number of running requests. Needs `ray[serve]`.
"""

from __future__ import annotations

import asyncio
import logging
import subprocess
from collections.abc import AsyncIterator
from typing import Any

import httpx
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from incomes_server.api.http.errors import error_response
from incomes_server.boot.child import Child, Where, free_port
from incomes_server.boot.front import HAD_IT, LOST_HEADER, NEVER_HAD_IT, error_event
from pydantic import Field

from incomes_plugin.errors import EngineLost, NotReady

logger = logging.getLogger("incomes.endpoint")

READY_LINE = "chat http://"
HOP_BY_HOP = frozenset({"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "host"})
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
CONNECT_S = 5.0
HEALTH_EVERY_S = 1.0
HOLD_S = 0.5
OTHERS_MAY = {f'"{NotReady.code}"'.encode(): NEVER_HAD_IT, f'"{EngineLost.code}"'.encode(): HAD_IT}
"""Codes of refusals in which only this engine has a part, and which part."""


class EndpointArgs(Where):
    """What `build` takes.

    Attributes:
        min_engines, max_engines: bounds of their number.
        requests_an_engine: running requests that one shall have; more start another engine, fewer end one.
        admin_port: of every engine, of which a machine has one then; default: a free one on each.
    """

    min_engines: int = Field(1, ge=1)
    max_engines: int = Field(1, ge=1)
    requests_an_engine: float = Field(8.0, gt=0)
    admin_port: int | None = Field(None, ge=1, le=65535)


class ServedEngine(Child):
    """An `incomes serve` as a child of a Serve replica: it is ready before the replica is."""

    async def serve(self, config: str, flags: list[str], admin_port: int | None) -> None:
        """Start it and wait until it is ready. Raises NotReady: it ended, or is not."""
        port = free_port()
        process = self.start(
            "serve", config, ["--port", str(port), "--admin-port", str(admin_port or free_port())], flags
        )
        if not await asyncio.to_thread(_is_up, process):
            raise NotReady(f"the engine ended while it started, with status {process.wait()}; its log says why")
        self.log_lines()
        self.url = f"http://127.0.0.1:{port}"
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        self.http = httpx.AsyncClient(timeout=httpx.Timeout(None, connect=CONNECT_S), limits=limits)
        if (await self.http.get(f"{self.url}/readyz")).status_code != 200:
            raise NotReady("the engine is up and not ready; its /readyz and its log say why")

    async def check_health(self) -> None:
        """Raise when only a restart helps: it ended, or says so."""
        if self.is_gone:
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
            streams = answer.headers.get("content-type", "").startswith("text/event-stream")
            if not streams:
                await answer.aread()
        except httpx.TransportError as error:
            return await self._lost(error)
        kept = {k: v for k, v in answer.headers.items() if k.lower() not in HOP_BY_HOP}
        if not streams:
            kept = {k: v for k, v in kept.items() if k.lower() not in ("content-encoding", "content-length")}
            part = next((part for code, part in OTHERS_MAY.items() if code in answer.content), None)
            if answer.status_code == 503 and part is not None:
                kept[LOST_HEADER] = part
                await asyncio.sleep(HOLD_S)
            return Response(answer.content, answer.status_code, kept)
        return StreamingResponse(_body_of(answer), answer.status_code, kept)

    async def _lost(self, error: httpx.TransportError) -> Response:
        """Nothing was answered. Until Serve has seen it too, a replica that refused at once would draw all requests."""
        logger.warning("an engine does not answer: %s", type(error).__name__)
        await asyncio.sleep(HOLD_S)
        refusal = error_response(NotReady("this engine has just ended; send the request again, to another"))
        refusal.headers[LOST_HEADER] = NEVER_HAD_IT if isinstance(error, httpx.ConnectError) else HAD_IT
        return refusal


def _is_up(process: subprocess.Popen[str]) -> bool:
    """Read its lines until it serves; False: it ended before."""
    return any(READY_LINE in line for line in process.stdout or ())


async def _body_of(answer: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for piece in answer.aiter_raw():
            yield piece
    except httpx.TransportError as error:
        logger.warning("an engine died while it answered: %s", type(error).__name__)
        yield error_event()
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
        ray_actor_options=how.actor_options,
    )
    @serve.ingress(app)
    class Engine:
        """A replica."""

        async def __init__(self, how: dict[str, Any]) -> None:  # type: ignore[misc]  # awaited
            self.engine, self.how = ServedEngine(), EndpointArgs.model_validate(how)
            await self.engine.serve(self.how.config, self.how.flags, self.how.admin_port)

        async def check_health(self) -> None:
            """Asked by Serve's controller; a replica whose engine is lost is replaced."""
            await self.engine.check_health()

        @app.api_route("/{path:path}", methods=METHODS)
        async def any_route(self, request: Request) -> Response:
            """Whatever the chat port serves."""
            return await self.engine.pass_on(request)

        def __del__(self) -> None:
            self.engine.stop(self.how.drain_s)

    deployed: Any = Engine
    return deployed.bind(how.model_dump())
