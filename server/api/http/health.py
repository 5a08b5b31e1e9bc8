"""/livez, /readyz, /health as a pure ASGI layer of both ports. /livez fails only when a restart is the sole remedy."""

from __future__ import annotations

from fastapi.responses import JSONResponse
from incomes_server.api.http.readiness import Readiness
from starlette.types import ASGIApp, Receive, Scope, Send


class HealthMiddleware:
    """Answers the probes; everything else goes on to the app."""

    def __init__(self, app: ASGIApp, readiness: Readiness) -> None:
        self.app = app
        self.readiness = readiness

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a probe, or pass on."""
        if scope["type"] != "http" or scope["method"] not in {"GET", "HEAD"}:
            return await self.app(scope, receive, send)
        if scope["path"] == "/livez":
            lost = self.readiness.lost
            return await JSONResponse({"status": "lost" if lost else "ok"}, 503 if lost else 200)(scope, receive, send)
        if scope["path"] in {"/readyz", "/health"}:
            return await self._readyz()(scope, receive, send)
        await self.app(scope, receive, send)

    def _readyz(self) -> JSONResponse:
        reasons = self.readiness.reasons()
        ready = not any(reasons.values())
        checks = {stage: {"ok": reason is None, "reason": reason} for stage, reason in reasons.items()}
        return JSONResponse({"ready": ready, "checks": checks}, 200 if ready else 503)
