"""Puts project and principal of the bearer token on each request. Without a known token: 401 in the OpenAI envelope;
without the scope that the route needs: 403.

Pure ASGI, used by both ports. Probes and metrics stay open: an orchestrator has no key, and they hold no edit.
"""

from __future__ import annotations

from incomes_server.api.http.errors import error_response
from incomes_server.api.http.scopes import OPEN_PATHS, required_scope
from incomes_server.auth.keys import KeyRing
from incomes_server.auth.principal import Principal, principal_var
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from incomes_plugin.errors import IncomesError, PermissionDenied


class AuthMiddleware:
    """Default deny: whatever is not in `OPEN_PATHS` needs a key, once a key is configured."""

    def __init__(self, app: ASGIApp, keys: KeyRing) -> None:
        self.app = app
        self.keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Set `state.project` and the principal, or answer 401 or 403."""
        # A browser sends its preflight (OPTIONS) without the key; it reads and changes nothing.
        preflight = scope.get("method") == "OPTIONS"
        if scope["type"] == "lifespan" or preflight or scope.get("path") in OPEN_PATHS:
            return await self.app(scope, receive, send)
        try:
            principal = await self.keys.principal_of(Headers(scope=scope).get("authorization"))
            if scope["type"] == "http":
                _check_scope(principal, scope["method"], scope["path"])
        except IncomesError as error:
            if scope["type"] == "websocket":
                return await send({"type": "websocket.close", "code": 1008, "reason": error.message})
            return await error_response(error)(scope, receive, send)
        scope.setdefault("state", {}).update(project=principal.project, principal=principal)
        token = principal_var.set(principal)
        try:
            await self.app(scope, receive, send)
        finally:
            principal_var.reset(token)


def _check_scope(principal: Principal, method: str, path: str) -> None:
    scope = required_scope(method, path)
    if scope is not None and not principal.may(scope):
        has = ", ".join(sorted(principal.scopes)) or "none"
        raise PermissionDenied(f"this route needs a key with the scope `{scope}`, the key has: {has}")
