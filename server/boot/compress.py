"""`incomes compress`: an engine that only makes gists. It joins a cluster's store, leases edits, and serves nobody.

Same order of a start as `app.py`, without chat port and admin API; probes and metrics stay. It follows the edit sets as
a replica that nobody waits for, because new edits are compared with those that are there.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request, Response
from incomes_server.api.http import metrics
from incomes_server.api.http.health import HealthMiddleware
from incomes_server.boot.app import Server
from incomes_server.boot.listen import HttpLimits, bind, http_server
from incomes_server.boot.observed import ObservedEngine
from incomes_server.boot.startup import unless
from incomes_server.compression.worker import run_worker
from incomes_server.replicas.sync import run_replica
from incomes_server.store.client import StoreClient
from incomes_server.store.outcomes import model_of
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from incomes_plugin.errors import InvalidValue
from incomes_plugin.pool.snapshot import SnapshotDelta

if TYPE_CHECKING:
    from incomes_plugin.vllm.engine import EditEngine

ASK_EVERY_S = 1.0


class CompressionServer(Server):
    """One process: an engine and a worker."""

    async def run(self, vllm_args: Sequence[str], stop: asyncio.Event) -> None:
        """Start, compress until `stop`, and stop in reverse order."""
        settings = self.settings
        async with AsyncExitStack() as stack:
            port = stack.enter_context(bind(settings.admin_host, settings.admin_port, "--admin-port"))
            _, store, queue, launched = await self._start_parts(stack, vllm_args, stop)
            engine = launched.engine
            limits = HttpLimits(settings.header_timeout_s, settings.shutdown_timeout_s)
            await stack.enter_async_context(http_server({port: self._probes()}, limits, log_level=settings.log_level))
            with self.stages.stage("handshake", "the model is the one that is served"):
                await unless(stop, _await_model(engine, store))
            await self._canary(engine)
            self.readiness.passed("replica")  # it is none
            if self.readiness.ready and not stop.is_set():
                observed = ObservedEngine(engine)
                name = f"compress-{socket.gethostname()}-{settings.admin_port}"
                work = run_worker(
                    queue, store, observed.capture, observed.compare, name=name, batch=settings.compression_batch
                )

                async def follow(delta: SnapshotDelta[bytes]) -> None:
                    if delta.label is None:  # new edits are compared with the newest states
                        await observed.commit(delta)

                replica = run_replica(store, follow, name=name, on_caught_up=lambda: None, serves=False)
                for loop in (replica, work):
                    stack.push_async_callback(self._background("store", loop))
            self.stages.done(f"compressing: probes http://{settings.admin_host}:{settings.admin_port}/readyz")
            stack.push_async_callback(self._background("engine", self._watch(engine, store, queue)))
            await self._until(stop)
            self.announce("stopping")

    def _probes(self) -> FastAPI:
        app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

        async def read_metrics(request: Request) -> Response:
            metrics.READY.set(self.readiness.ready)
            return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

        app.add_api_route("/metrics", read_metrics)
        app.add_middleware(HealthMiddleware, readiness=self.readiness)
        return app


async def _await_model(engine: EditEngine, store: StoreClient) -> None:
    """Until the engines of the store serve this model. One that only compresses does not decide which.

    Raises:
        InvalidValue: they serve another.
    """
    while (model := await store.read(model_of)) is None:
        await asyncio.sleep(ASK_EVERY_S)
    if model != engine.fingerprint:
        raise InvalidValue(
            f"the edit store accepts gists of the model {model}, this engine has {engine.fingerprint}: give it the "
            "model and adapter that are served",
            param="model",
        )
