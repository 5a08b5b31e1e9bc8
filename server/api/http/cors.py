"""Which web pages may call a port: the browser asks before it sends a request with a key."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

EXPOSED = (
    "x-request-id",
    "x-incomes-edit-set",
    "x-incomes-snapshot",
    "x-incomes-version",
    "x-incomes-edits",
    "x-incomes-verbatim",
    "retry-after",
)


def with_cors(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """The app for pages of these origins (`*`: of all); without any, the app itself."""
    if not origins:
        return app
    return CORSMiddleware(app, allow_origins=origins, allow_methods=["*"], allow_headers=["*"], expose_headers=EXPOSED)
