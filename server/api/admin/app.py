"""The admin app (port 8001): all routes under /v1, probes and metrics."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from incomes_server.api.admin import (
    api_keys,
    audit_events,
    batches,
    data_keys,
    edit_sets,
    edits,
    evaluations,
    exports,
    files,
    imports,
    labels,
    recall,
    replicas,
    snapshots,
    switches,
    trials,
)
from incomes_server.api.admin.context import AdminContext
from incomes_server.api.admin.schemas import ErrorEnvelope
from incomes_server.api.admin.strict import refuse_nul, refuse_unknown_query
from incomes_server.api.http import metrics
from incomes_server.api.http.auth import AuthMiddleware
from incomes_server.api.http.body import BodyLimits, BodyMiddleware
from incomes_server.api.http.cors import with_cors
from incomes_server.api.http.errors import install_error_handlers
from incomes_server.api.http.health import HealthMiddleware
from incomes_server.api.http.rate import RateMiddleware
from incomes_server.api.http.readiness import Readiness
from incomes_server.api.http.request_id import RequestIdMiddleware
from incomes_server.auth.keys import KeyRing
from incomes_server.settings import Settings
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from incomes_plugin.errors import Unavailable

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorEnvelope} for status in (400, 401, 404, 409, 412, 413, 422, 429, 500, 503)
}


IMPORT_PATH = "/v1/edits/import"
MAX_BODY_BYTES = 1 << 20
"""Largest body of a single edit with its metadata. Imports have a setting of their own."""


def build_admin_app(context: AdminContext | None, settings: Settings, readiness: Readiness) -> FastAPI:
    """Build the app.

    Args:
        context: what the routes work with; None when only the OpenAPI description is wanted.
        settings: API keys and limits of bodies.
        readiness: read by /readyz.
    """
    app = FastAPI(title="InComeS admin API", version="1", docs_url=None, redoc_url=None)
    app.state.context = context
    app.state.readiness = readiness
    # Before edits: POST /v1/edits/import and its like must not be read as POST /v1/edits/{edit_id}.
    own = (
        edits,
        switches,
        edit_sets,
        labels,
        evaluations,
        snapshots,
        files,
        batches,
        replicas,
        api_keys,
        data_keys,
        audit_events,
    )
    for module in (imports, exports, trials, recall, *own):
        checks = [Depends(refuse_nul), Depends(refuse_unknown_query)]
        app.include_router(module.router, dependencies=checks, responses=ERRORS)
    app.add_api_route("/metrics", read_metrics, response_class=Response, tags=["operations"])
    install_error_handlers(app)
    # The last one added is the outermost.
    app.add_middleware(BodyMiddleware, limits=_body_limits(settings))
    keys = KeyRing(settings.api_keys) if context is None else context.keys
    app.add_middleware(RateMiddleware, quotas=settings.quotas_by(keys))
    app.add_middleware(AuthMiddleware, keys=keys)
    app.add_middleware(HealthMiddleware, readiness=readiness)
    if settings.cors_origins:
        app.add_middleware(with_cors, settings.cors_origins)
    app.add_middleware(RequestIdMiddleware)
    return app


def _body_limits(settings: Settings) -> BodyLimits:
    return BodyLimits(
        lambda path: settings.max_import_bytes if path in (IMPORT_PATH, files.FILES_PATH) else MAX_BODY_BYTES,
        settings.body_timeout_s,
        raw_paths=frozenset({IMPORT_PATH}),
        streamed_paths=frozenset({files.FILES_PATH}),
    )


async def read_metrics(request: Request) -> Response:
    """Prometheus metrics of the server and its engine."""
    context: AdminContext = request.app.state.context
    readiness: Readiness = request.app.state.readiness
    metrics.READY.set(readiness.ready)
    metrics.REFUSED_CHANGES.set(readiness.num_refused)
    with suppress(Unavailable):  # store or engine is down: /readyz says so, the other metrics still count
        await metrics.refresh(context.store, context.queue)
        metrics.show_engine(await context.room.status())
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
