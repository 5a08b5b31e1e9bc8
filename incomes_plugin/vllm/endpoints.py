"""The `vllm.endpoint_plugins` entry point: `GET /plugins/incomes/status` on vLLM's own port.

Read-only and without content of edits: vLLM does not guard `/plugins` with its API key.
"""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse

from incomes_plugin.errors import IncomesError
from incomes_plugin.vllm.config import has_selection_layer

STATUS_ROUTE = "/plugins/incomes/status"
ENGINE_STATE = "incomes_engine"


class IncomesEndpoints:
    """vLLM's `EndpointPlugin` protocol."""

    name = "incomes"
    required_tasks = ("generate",)

    def attach_router(self, app: FastAPI) -> None:
        """Add the status route."""

        @app.get(STATUS_ROUTE)
        async def status() -> JSONResponse:
            engine = getattr(app.state, ENGINE_STATE, None)
            if engine is None:
                return JSONResponse({"ready": False, "reason": "no edit engine is attached"}, 503)
            try:
                state = await engine.status()
            except IncomesError as error:
                return JSONResponse({"ready": False, "reason": error.message}, 503)
            return JSONResponse(
                {
                    "ready": True,
                    "model_fingerprint": state.worker.fingerprint,
                    "vllm_version": state.worker.vllm_version,
                    "runner": state.worker.runner,
                    "pool": asdict(state.worker.pool),
                    "edit_sets": len(state.edit_sets),
                    "pinned_requests": state.pinned_requests,
                }
            )

    async def init_state(self, engine_client: Any, state: Any, args: Namespace) -> None:
        """Nothing to prepare: the launcher attaches the edit engine; an engine without our worker has none."""
        if engine_client is None or not has_selection_layer(engine_client.vllm_config):
            setattr(state, ENGINE_STATE, None)


def create() -> IncomesEndpoints:
    """Entry point factory."""
    return IncomesEndpoints()
