"""The whole chat port: request id, probes, authentication and the edit gate around vLLM's FastAPI app."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from incomes_server.api.chat.gate import ChatGate
from incomes_server.api.chat.resolve import ScopeResolver
from incomes_server.api.chat.verbatim import VerbatimChat
from incomes_server.api.http.auth import AuthMiddleware
from incomes_server.api.http.body import BodyLimits, BodyMiddleware
from incomes_server.api.http.cors import with_cors
from incomes_server.api.http.errors import error_response, on_incomes_error
from incomes_server.api.http.health import HealthMiddleware
from incomes_server.api.http.rate import RateMiddleware
from incomes_server.api.http.readiness import Readiness
from incomes_server.api.http.request_id import RequestIdMiddleware
from incomes_server.auth.keys import KeyRing
from incomes_server.auth.quotas import RunningRequests
from incomes_server.settings import Settings
from incomes_server.store.client import StoreClient
from incomes_server.store.directory import EditSetDirectory
from starlette.types import ASGIApp

from incomes_plugin.errors import IncomesError, ModelNotFound

if TYPE_CHECKING:
    from incomes_plugin.lab.verbatim.serving import Recaller
    from incomes_plugin.vllm.engine import EditEngine


def build_chat_app(
    vllm_app: FastAPI,
    engine: EditEngine,
    directory: EditSetDirectory,
    settings: Settings,
    readiness: Readiness,
    keys: KeyRing,
    recaller: Recaller,
) -> ASGIApp:
    """Wrap vLLM's app, which must not have been served yet."""
    vllm_app.add_exception_handler(IncomesError, on_incomes_error)
    # vLLM stops "its" server when the engine dies; ours stays up and says 503 with the reason.
    vllm_app.state.server = SimpleNamespace(should_exit=False)
    vllm_app.add_api_route("/v1/models/{model:path}", retrieve_model, include_in_schema=False)

    async def status(project: str) -> dict[str, Any]:
        return await project_status(engine, directory.store, project)

    quotas = settings.quotas_by(keys)
    app: ASGIApp = ChatGate(
        vllm_app,
        engine,
        ScopeResolver(engine, directory, readiness),
        VerbatimChat(vllm_app, engine, directory.store, recaller),
        RunningRequests(quotas),
        alone=lambda: keys.is_open,
        share_blocks=settings.share_prefix_cache,
        status=status,
    )
    app = BodyMiddleware(app, BodyLimits(lambda _: settings.max_body_bytes, settings.body_timeout_s))
    app = RateMiddleware(app, quotas)
    app = AuthMiddleware(app, keys)
    app = HealthMiddleware(app, readiness)
    app = with_cors(app, settings.cors_origins)
    return RequestIdMiddleware(app)


async def retrieve_model(model: str, request: Request) -> Any:
    """One card of `GET /v1/models`."""
    cards = (await request.app.state.openai_serving_models.show_available_models()).data
    found = next((card for card in cards if card.id == model), None)
    if found is None:
        served = ", ".join(card.id for card in cards)
        return error_response(ModelNotFound(f"no model {model!r}; there is {served}", param="model"))
    return found


async def project_status(engine: EditEngine, store: StoreClient, project: str) -> dict[str, Any]:
    """The status that a project may see: the model and the project's own figures."""
    own = await store.versions_of(project)
    state = await engine.status()
    return {
        "ready": True,
        "model_fingerprint": state.worker.fingerprint,
        "vllm_version": state.worker.vllm_version,
        "runner": state.worker.runner,
        "edits": sum(ref.num_edits for edit_set, ref in state.edit_sets.items() if edit_set in own),
        "edit_sets": len(own),
        "pinned_requests": sum(number for edit_set, number in state.pinned_by_set.items() if edit_set in own),
    }
