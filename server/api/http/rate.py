"""Requests a minute as a layer of both ports: 429 with Retry-After, and the headers that OpenAI's clients know."""

from __future__ import annotations

import math

from incomes_server.api.http.errors import error_response
from incomes_server.api.http.scopes import is_chat, is_write
from incomes_server.auth.quotas import QuotaSource
from incomes_server.auth.rate import Allowance, RateLimiter
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from incomes_plugin.errors import RateLimited


class RateMiddleware:
    """Pure ASGI, behind authentication and in front of the body: what is refused is not read."""

    def __init__(self, app: ASGIApp, quotas: QuotaSource) -> None:
        self.app = app
        self.quotas = quotas
        self.limiter = RateLimiter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count generations and writes; pass everything else on."""
        if (found := self._take(scope)) is None:
            return await self.app(scope, receive, send)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["x-ratelimit-limit-requests"] = str(found.limit)
                headers["x-ratelimit-remaining-requests"] = str(found.remaining)
                headers["x-ratelimit-reset-requests"] = f"{found.reset_s:.3f}s"
            await send(message)

        if not found.retry_after_s:
            return await self.app(scope, receive, send_with_headers)
        kind, wait_s = "generations" if is_chat(scope["method"], scope["path"]) else "writes", found.retry_after_s
        error = RateLimited(
            f"the project may send {found.limit} {kind} in a minute; send this one again in {wait_s:.1f} s",
            retry_after_s=math.ceil(wait_s),
        )
        await error_response(error)(scope, receive, send_with_headers)

    def _take(self, scope: Scope) -> Allowance | None:
        """None where nothing limits the request."""
        if scope["type"] != "http" or "project" not in scope.get("state", {}):
            return None
        project, method, path = scope["state"]["project"], scope["method"], scope["path"]
        quotas = self.quotas.of(project)
        kind, limit = "chat", quotas.chat_per_minute if is_chat(method, path) else None
        if is_write(method, path):
            kind, limit = "write", quotas.writes_per_minute
        return None if limit is None else self.limiter.take(project, kind, limit)
