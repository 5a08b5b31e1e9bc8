"""The whole chat port: request id, probes, authentication and the edit gate around vLLM's FastAPI app."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

from fastapi import FastAPI
from incomes_server.api.body import BodyLimits, BodyMiddleware
from incomes_server.api.chat.directory import EditSetDirectory
from incomes_server.api.chat.gate import ChatGate
from incomes_server.api.chat.resolve import ScopeResolver
from incomes_server.api.errors import on_incomes_error
from incomes_server.api.health import HealthMiddleware
from incomes_server.api.readiness import Readiness
from incomes_server.api.request_id import RequestIdMiddleware
from incomes_server.auth.keys import KeyRing
from incomes_server.auth.middleware import AuthMiddleware
from incomes_server.quotas import Quotas, RunningRequests
from incomes_server.settings import Settings
from starlette.types import ASGIApp

from incomes_plugin.errors import IncomesError

if TYPE_CHECKING:
    from incomes_plugin.vllm.engine import EditEngine


def build_chat_app(
    vllm_app: FastAPI, engine: EditEngine, directory: EditSetDirectory, settings: Settings, readiness: Readiness
) -> ASGIApp:
    """Wrap vLLM's app, which must not have been served yet."""
    vllm_app.add_exception_handler(IncomesError, on_incomes_error)
    # vLLM stops "its" server when the engine dies; ours stays up and says 503 with the reason.
    vllm_app.state.server = SimpleNamespace(should_exit=False)
    resolver = ScopeResolver(engine, directory, readiness)
    app: ASGIApp = ChatGate(vllm_app, engine, resolver, RunningRequests(Quotas.of(settings)))
    app = BodyMiddleware(app, BodyLimits(lambda _: settings.max_body_bytes, settings.body_timeout_s))
    app = AuthMiddleware(app, KeyRing(settings.api_keys))
    app = HealthMiddleware(app, readiness)
    return RequestIdMiddleware(app)
