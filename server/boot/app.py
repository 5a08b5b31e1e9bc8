"""`incomes serve`: starts Ray and store, engine, canary, replica and both HTTP ports in order; stops them in reverse.

One asyncio main thread. `serve` returns after SIGINT or SIGTERM, when all processes that it started have ended.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from importlib import import_module
from typing import TYPE_CHECKING, Any

from incomes_server.api.admin.app import build_admin_app
from incomes_server.api.admin.asker import StateAsker
from incomes_server.api.admin.context import AdminContext
from incomes_server.api.admin.import_runner import run_imports
from incomes_server.api.admin.pool_room import PoolRoom
from incomes_server.api.admin.tokens import EditTokenizer
from incomes_server.api.chat.app import build_chat_app
from incomes_server.api.http.metrics import observe_store
from incomes_server.api.http.readiness import Readiness
from incomes_server.auth.keys import KeyRing
from incomes_server.boot.engine_args import is_cpu_package, vllm_arguments
from incomes_server.boot.listen import HttpLimits, bind, http_server
from incomes_server.boot.observed import ObservedEngine
from incomes_server.boot.ray_local import import_ray, start_ray
from incomes_server.boot.retokenize import retokenize
from incomes_server.boot.stages import Announce, Stages
from incomes_server.boot.startup import (
    SIGNALS,
    EndNow,
    end_at_last,
    engine_loss,
    first_of,
    interruptible,
    ray_settings,
    stop_ray_after,
)
from incomes_server.boot.vectors import make_vectors, requeue_vectors
from incomes_server.boot.watch import ENGINE_ANSWERS_WITHIN_S, parts_of_this_process, watch_answers, watch_processes
from incomes_server.compression.client import CompressionClient
from incomes_server.compression.worker import run_worker
from incomes_server.replicas.sealing import keep_sealed
from incomes_server.replicas.sync import run_replica
from incomes_server.settings import Settings
from incomes_server.store.client import StoreClient
from incomes_server.store.directory import EditSetDirectory
from incomes_server.store.outcomes import model_of
from incomes_server.store.retention import keep_tidy

from incomes_plugin.errors import EngineLost, InvalidValue, NotReady
from incomes_plugin.model.resolve import Served, resolve
from incomes_plugin.orphans import guard_children

if TYPE_CHECKING:
    from incomes_plugin.vllm.engine import EditEngine
    from incomes_plugin.vllm.launcher import Launched

logger = logging.getLogger("incomes.serve")


async def serve(
    settings: Settings,
    vllm_args: Sequence[str],
    announce: Announce,
    end_now: EndNow,
    kind: type[Server] | None = None,
) -> None:
    """Run the server until a signal.

    Args:
        kind: what to run; default: `Server`.
        vllm_args: flags passed on to vLLM.
        announce: prints one line of progress.
        end_now: called when something hangs while the server stops.

    Raises:
        IncomesError: the start failed, or a part died that the server cannot do without; everything is stopped.
    """
    stop = asyncio.Event()
    guard_children()
    try:
        await (kind or Server)(settings, announce, end_now).run(vllm_args, stop)
    except KeyboardInterrupt:
        announce("stopped during the start")


class Server:
    """One process: store actors, engine, worker, replica, chat port, admin port."""

    def __init__(self, settings: Settings, announce: Announce, end_now: EndNow) -> None:
        self.settings = settings
        self.readiness = Readiness()
        self.stages = Stages(self.readiness, announce)
        self.announce = announce
        self.end_now = end_now

    async def run(self, vllm_args: Sequence[str], stop: asyncio.Event) -> None:
        """Start, serve until `stop`, and stop in reverse order."""
        settings = self.settings
        async with AsyncExitStack() as stack:
            sockets = [
                stack.enter_context(bind(settings.host, settings.port, "--port")),
                stack.enter_context(bind(settings.admin_host, settings.admin_port, "--admin-port")),
            ]
            served, store, queue, launched = await self._start_parts(stack, vllm_args, stop)
            app, engine = launched.app, launched.engine
            with self.stages.stage("handshake", "engine and store agree on the model"):
                context = self._context(served, launched, store, queue)
                await self._handshake(engine, context)
            await self._canary(engine)
            await self._start_http(stack, app, engine, context, sockets)
            caught_up = self._start_loops(stack, engine, context, stop)
            with self.stages.stage("replica", "edits caught up"):
                await first_of(caught_up, stop)
            self._say_ready()
            stack.push_async_callback(self._background("engine", self._watch(engine, store, queue)))
            await self._until(stop)
            self.announce("stopping")
            self.readiness.failed("replica", "the server is stopping")

    async def _until(self, stop: asyncio.Event) -> None:
        """Wait for a signal. Raises EngineLost when a process dies that the server cannot do without."""
        parts = [*parts_of_this_process()]
        watching = asyncio.create_task(watch_processes(self.readiness, parts))
        stopping = asyncio.create_task(stop.wait())
        loss: EngineLost | None = None
        try:
            await asyncio.wait([watching, stopping], return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                await watching
        except EngineLost as error:
            loss = error
            raise
        finally:
            watching.cancel()
            stopping.cancel()
            end_at_last(self.settings.shutdown_timeout_s, self.end_now, loss)

    async def _watch(self, engine: EditEngine, store: StoreClient, queue: CompressionClient) -> None:
        """Keep the checks of /readyz up to date."""

        async def ask_engine() -> None:
            await engine.status()

        async def ask_scheduler() -> None:
            await queue.stats()

        await asyncio.gather(
            watch_answers(self.readiness, "engine_answers", ask_engine, ENGINE_ANSWERS_WITHIN_S),
            watch_answers(self.readiness, "store_answers", store.health),
            watch_answers(self.readiness, "scheduler_answers", ask_scheduler),
        )

    async def _start_parts(
        self, stack: AsyncExitStack, vllm_args: Sequence[str], stop: asyncio.Event
    ) -> tuple[Served, StoreClient, CompressionClient, Launched]:
        """The first steps of every start: signals, model, Ray with store and queue, engine."""
        settings = self.settings
        for number in SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        with interruptible():
            served = resolve(settings.model, settings.adapter, self.announce)
        self.announce(f"base {served.base_dir}, adapter {served.adapter_dir}")
        with self.stages.stage("store", "Ray, edit store and vLLM's imports"), interruptible():
            store, queue = await self._start_store(stack)
        with self.stages.stage("engine", "engine load"), interruptible():
            launched = await stack.enter_async_context(self._launch(served, vllm_args))
        self.readiness.watch("engine", lambda: engine_loss(launched.app))
        return served, store, queue, launched

    async def _start_store(self, stack: AsyncExitStack) -> tuple[StoreClient, CompressionClient]:
        """Start Ray in a thread, for its processes take seconds to come up; vLLM is imported meanwhile."""
        ray, namespace = ray_settings(self.settings), self.settings.ray_namespace
        import_ray(ray)
        starting = asyncio.create_task(asyncio.to_thread(start_ray, ray))
        stack.push_async_callback(stop_ray_after, starting)
        await asyncio.sleep(0)
        import_module("incomes_plugin.vllm.launcher")
        import_module("vllm.entrypoints.launchers.api_server.entry")
        await starting
        store = await StoreClient.connect(namespace, observe=observe_store)
        return store, await CompressionClient.connect(namespace)

    def _launch(self, served: Served, vllm_args: Sequence[str]) -> AbstractAsyncContextManager[Launched]:
        from incomes_plugin.vllm.config import PluginConfig
        from incomes_plugin.vllm.launcher import launch

        settings = self.settings
        arguments = vllm_arguments(settings, served.base_dir, vllm_args, cpu=is_cpu_package())
        return launch(arguments, PluginConfig(served.adapter_dir, settings.pool_bytes, settings.index_from_edits))

    def _context(
        self, served: Served, launched: Launched, store: StoreClient, queue: CompressionClient
    ) -> AdminContext:
        engine = launched.engine
        tokenizer = EditTokenizer(served.base_dir, engine.adapter.max_edit_tokens)
        directory = EditSetDirectory(store, self.settings.default_edit_set)
        keys = KeyRing(self.settings.api_keys, store.tenancy)
        room = PoolRoom(engine, store, self.settings.quotas_by(keys))
        asker = StateAsker(launched.app, engine, store, room, self.settings.served_model_name)
        from incomes_plugin.lab.verbatim.frame import RecallFrame
        from incomes_plugin.lab.verbatim.serving import Recaller

        recaller = Recaller(lambda: RecallFrame.of(served.base_dir, engine.dtype), engine.recall)
        return AdminContext(self.settings, store, queue, tokenizer, directory, room, keys, asker, recaller)

    async def _handshake(self, engine: EditEngine, context: AdminContext) -> None:
        """Send gists that another model made back to the queue: they must never reach this engine. While engines serve
        with them, this one must have their model.

        Raises:
            InvalidValue: it has not.
        """
        model = await context.store.read(model_of)
        if model not in (None, engine.fingerprint) and any(r.serving for r in await context.store.replicas()):
            raise InvalidValue(
                f"the engines of this edit store serve the model {model}, this one has {engine.fingerprint}: give all "
                "the same model and adapter, or end all of them before a change",
                param="model",
            )
        stale = await context.store.requeue_stale(engine.fingerprint)
        if stale:
            self.announce(f"          {stale} edits were compressed for another model and are compressed again")
        spelled = await retokenize(context.store, context.tokenizer.ids, context.tokenizer.max_edit_tokens)
        if spelled:
            self.announce(f"          {spelled} of them have other tokens in this model")
        await context.queue.replay()
        stale = await requeue_vectors(self.settings, context)
        if stale:
            self.announce(f"          vectors of {stale} verbatim edits were made with another model")

    async def _canary(self, engine: EditEngine) -> None:
        """A probe edit must change logits; if not, the ports answer, but /readyz says why they refuse."""
        from incomes_plugin.vllm.canary import run_canary

        try:
            with self.stages.stage("canary", "canary edit changes the model"):
                report = await run_canary(engine)
                if not report.ok:
                    raise NotReady(f"the canary edit did not change the model: {report.reason}")
        except NotReady as error:
            self.announce(f"not ready: {error.message}")

    async def _start_http(
        self, stack: AsyncExitStack, app: Any, engine: EditEngine, context: AdminContext, sockets: Sequence[Any]
    ) -> None:
        settings = self.settings
        assert context.recaller is not None
        chat = build_chat_app(app, engine, context.directory, settings, self.readiness, context.keys, context.recaller)
        admin = build_admin_app(context, settings, self.readiness)
        limits = HttpLimits(settings.header_timeout_s, settings.shutdown_timeout_s)
        apps = dict(zip(sockets, (chat, admin), strict=True))
        await stack.enter_async_context(http_server(apps, limits, log_level=settings.log_level))

    def _start_loops(
        self, stack: AsyncExitStack, engine: EditEngine, context: AdminContext, stop: asyncio.Event
    ) -> asyncio.Event:
        """Start worker and replica loop; the event is set when the engine has every edit."""
        caught_up = asyncio.Event()
        name = self.settings.engine_name
        observed = ObservedEngine(engine)

        def on_caught_up() -> None:
            if caught_up.is_set():
                self.readiness.passed("replica")
            caught_up.set()

        def on_lost(reason: str) -> None:
            self.readiness.failed("replica", reason)

        loops: list[tuple[str, Awaitable[None]]] = []
        if self.settings.compress_here:
            worker = run_worker(
                context.queue,
                context.store,
                observed.capture,
                observed.compare,
                name=name,
                batch=self.settings.compression_batch,
            )
            loops = [("store", worker)]
        replica = run_replica(
            context.store,
            observed.commit,
            name=name,
            on_caught_up=on_caught_up,
            on_lost=on_lost,
            on_refused=self.readiness.refused,
            on_leased=self.readiness.leased,
        )
        if self.settings.verbatim_vectors and not engine.says_texts:
            self.announce("          no vectors are made: this engine compiles its model (start with --enforce-eager)")
        elif self.settings.verbatim_vectors:
            loops.append(("store", make_vectors(context)))
        tidy = keep_tidy(context.store, self.settings.keep_history_s)
        imports = run_imports(context)
        loops += [("replica", replica), ("store", tidy), ("store", imports)]
        if self.settings.is_encrypted:
            loops.append(("store", keep_sealed(context.store)))
        for stage, loop in loops:
            stack.push_async_callback(self._background(stage, loop))
        return caught_up

    def _background(self, stage: str, loop: Awaitable[None]) -> Callable[[], Awaitable[None]]:
        """Run a loop beside the server; if it ends by itself the server is not ready any more."""

        async def watched() -> None:
            try:
                await loop
            except Exception as error:  # a bug: say so on /readyz and in the log, whatever it is
                self.readiness.failed(stage, f"{type(error).__name__}: {error}")
                logger.exception("the %s loop failed", stage)
                raise

        task = asyncio.create_task(watched())

        async def cancel() -> None:
            task.cancel()
            await asyncio.wait([task])

        return cancel

    def _say_ready(self) -> None:
        settings = self.settings
        state = "ready" if self.readiness.ready else "started, but NOT ready (see /readyz)"
        self.stages.done(
            f"{state}: chat http://{settings.host}:{settings.port}/v1, "
            f"admin http://{settings.admin_host}:{settings.admin_port}/v1"
        )
