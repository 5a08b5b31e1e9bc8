"""ASGI layer around vLLM's app: each generation runs in a pinned edit scope, or is refused with a typed error."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from incomes_server.api.chat.attribute import Attributor
from incomes_server.api.chat.fields import parse_body
from incomes_server.api.chat.resolve import MIN_VERSION, ScopeResolver
from incomes_server.api.chat.respond import AttributionSender, HeaderSender, LossSender
from incomes_server.api.chat.routes import COMPLETIONS, GENERATION, is_passed
from incomes_server.api.chat.verbatim import VerbatimChat
from incomes_server.api.http.body import IN_THREAD_BYTES, replay, with_body_length
from incomes_server.api.http.errors import error_response
from incomes_server.api.http.metrics import GENERATIONS
from incomes_server.auth.quotas import RunningRequests
from starlette.datastructures import Headers
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from incomes_plugin.errors import IncomesError, MethodNotAllowed, RouteNotFound, RouteNotSupported
from incomes_plugin.telemetry import span
from incomes_plugin.vllm.endpoints import STATUS_ROUTE

if TYPE_CHECKING:
    from incomes_plugin.vllm.engine import EditEngine


class ChatGate:
    """Middleware of vLLM's FastAPI app; needs `state.project` (AuthMiddleware) and a whole body (BodyMiddleware).

    Args:
        alone: whether there is one project, which may know all of the engine and needs no KV blocks of its own.
        share_blocks: projects share KV blocks of equal prompts.
        verbatim: answers what verbatim edits lead; asked where a snapshot has some.
        status: what a project may know of the engine.
    """

    def __init__(
        self,
        app: FastAPI,
        engine: EditEngine,
        resolver: ScopeResolver,
        verbatim: VerbatimChat,
        running: RunningRequests,
        *,
        alone: Callable[[], bool],
        share_blocks: bool,
        status: Callable[[str], Awaitable[dict[str, Any]]],
    ) -> None:
        self._app = app
        self._running = running
        self._alone = alone
        self._share_blocks = share_blocks
        self._status = status
        self._engine = engine
        self._resolver = resolver
        self._verbatim = verbatim

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Route one request: pass, generate in a scope, or refuse."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008, "reason": "no edits on websockets"})
        try:
            if not self._alone() and (scope["method"], scope["path"]) == ("GET", STATUS_ROUTE):
                await JSONResponse(await self._status(scope["state"]["project"]))(scope, receive, send)
            elif is_passed(scope["method"], scope["path"]):
                await self._app(scope, receive, send)
            elif scope["method"] == "POST" and scope["path"] in GENERATION:
                with self._running.of(scope["state"]["project"]):
                    await self._generate(scope, receive, send)
            else:
                raise self._refusal(scope)
        except IncomesError as error:
            GENERATIONS.labels("", error.code).inc()
            await error_response(error)(scope, receive, send)

    def _refusal(self, scope: Scope) -> IncomesError:
        """The error for a route that is not served: vLLM has it but edits are not proven on it, it has other methods,
        or it does not exist."""
        name = f"{scope['method']} {scope['path']}"
        matches = {route.matches(scope)[0] for route in self._app.routes}
        if Match.FULL in matches:
            return RouteNotSupported(f"{name} is not served: edits are not proven on it")
        if Match.PARTIAL in matches:
            return MethodNotAllowed(f"{scope['path']} does not take {scope['method']}")
        return RouteNotFound(f"there is no {name}")

    async def _generate(self, scope: Scope, receive: Receive, send: Send) -> None:
        from incomes_plugin.vllm.pin import EditScope, use_scope

        project = scope["state"]["project"]
        raw, salt = (await receive())["body"], None if self._alone() or self._share_blocks else project
        if len(raw) > IN_THREAD_BYTES:
            parsed = await asyncio.to_thread(parse_body, scope["path"], raw, salt=salt)
        else:
            parsed = parse_body(scope["path"], raw, salt=salt)
        with span("edits.resolve"):
            least = Headers(scope=scope).get(MIN_VERSION)
            resolved = await self._resolver.resolve(project, parsed.edits, parsed.attributions, least)
        GENERATIONS.labels(resolved.reason, "").inc()
        snapshot = resolved.snapshot
        edit_scope = EditScope(snapshot.edit_set, snapshot, resolved.trace, numbered=scope["path"] == COMPLETIONS)
        headers = dict(resolved.headers)
        plain: Send = LossSender(HeaderSender(send, headers), self._resolver.loss)
        answer = plain
        tracing: AbstractAsyncContextManager[object] = nullcontext()
        if parsed.attributions:
            tracing = attributor = Attributor(self._engine, resolved, parsed.answers)
            answer = AttributionSender(plain, attributor)
        inner_scope = with_body_length(scope, parsed.body)
        # No await between resolving and holding: a commit in between could retire the snapshot.
        held = self._engine.hold(snapshot) if snapshot.num_edits else nullcontext()
        with held, use_scope(edit_scope):
            if snapshot.num_edits and self._engine.has_verbatim(snapshot):
                unused = await self._verbatim.answer(scope, parsed, project, resolved, edit_scope, plain)
                if unused is None:
                    return
                headers |= unused
            async with tracing:
                await self._app(inner_scope, replay(parsed.body, receive), answer)
