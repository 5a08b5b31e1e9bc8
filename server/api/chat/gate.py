"""ASGI layer around vLLM's app: each generation runs in a pinned edit scope, or is refused with a typed error."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from incomes_server.api.body import replay
from incomes_server.api.chat.fields import parse_body
from incomes_server.api.chat.resolve import Resolved, ScopeResolver
from incomes_server.api.chat.respond import AttributionSender, HeaderSender, LossSender
from incomes_server.api.chat.routes import GENERATION, PASSED
from incomes_server.api.errors import error_response
from incomes_server.metrics import GENERATIONS
from incomes_server.quotas import RunningRequests
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Receive, Scope, Send

from incomes_plugin.errors import IncomesError, RouteNotSupported

if TYPE_CHECKING:
    from incomes_plugin.vllm.engine import EditEngine


class ChatGate:
    """Middleware of vLLM's FastAPI app; needs `state.project` (AuthMiddleware) and a whole body (BodyMiddleware)."""

    def __init__(self, app: ASGIApp, engine: EditEngine, resolver: ScopeResolver, running: RunningRequests) -> None:
        self._app = app
        self._running = running
        self._engine = engine
        self._resolver = resolver

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Route one request: pass, generate in a scope, or refuse."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008, "reason": "no edits on websockets"})
        try:
            if (scope["method"], scope["path"]) in PASSED or scope["method"] == "OPTIONS":
                await self._app(scope, receive, send)
            elif scope["method"] == "POST" and scope["path"] in GENERATION:
                with self._running.of(scope["state"]["project"]):
                    await self._generate(scope, receive, send)
            else:
                raise RouteNotSupported(f"{scope['method']} {scope['path']} is not served: edits are not proven on it")
        except IncomesError as error:
            GENERATIONS.labels("", error.code).inc()
            await error_response(error)(scope, receive, send)

    async def _generate(self, scope: Scope, receive: Receive, send: Send) -> None:
        from incomes_plugin.vllm.pin import EditScope, use_scope

        parsed = parse_body(scope["path"], (await receive())["body"])
        resolved = await self._resolver.resolve(scope["state"]["project"], parsed.edits, parsed.attributions)
        GENERATIONS.labels(resolved.reason, "").inc()
        edit_scope = EditScope(resolved.snapshot.edit_set, resolved.snapshot, resolved.trace)
        answer: Send = LossSender(HeaderSender(send, resolved.headers), self._resolver.loss)
        if parsed.attributions:
            answer = AttributionSender(answer, self._attributor(resolved))
        inner_scope = _with_body_length(scope, parsed.body)
        # No await between resolving and holding: a commit in between could retire the snapshot.
        held = self._engine.hold(resolved.snapshot) if resolved.snapshot.num_edits else nullcontext()
        with held, use_scope(edit_scope):
            await self._app(inner_scope, replay(parsed.body, receive), answer)

    def _attributor(self, resolved: Resolved) -> Callable[[], Awaitable[dict[str, Any]]]:
        async def attribute() -> dict[str, Any]:
            snapshot = resolved.snapshot
            applied, none_weight = [], 1.0
            if snapshot.num_edits:  # else the request took the stock path, where nothing is traced
                found = await self._engine.attribution(resolved.trace or "")
                applied, none_weight = list(found.applied), found.none_weight
            return {
                "edit_set": snapshot.edit_set,
                "snapshot": snapshot.id,
                "reason": resolved.reason,
                "applied": [{"edit": edit, "version": v, "weight": round(w, 6)} for edit, v, w in applied],
                "none_weight": round(none_weight, 6),
            }

        return attribute


def _with_body_length(scope: Scope, body: bytes) -> Scope:
    inner = {**scope, "headers": list(scope["headers"])}
    headers = MutableHeaders(scope=inner)
    headers["content-length"] = str(len(body))
    del headers["transfer-encoding"]
    return inner
