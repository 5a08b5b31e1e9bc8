"""The scope that each route of both ports needs, in one table. What it lacks needs `admin`, and a test fails."""

from __future__ import annotations

import re
from functools import cache

from incomes_server.auth.principal import Scope

CHAT, READ, WRITE, ACTIVATE, ADMIN = Scope.CHAT, Scope.READ, Scope.WRITE, Scope.ACTIVATE, Scope.ADMIN

REQUIRED: dict[str, Scope | None] = {
    # Probes and metrics are for an orchestrator, which has no key.
    "GET /livez": None,
    "GET /readyz": None,
    "GET /health": None,
    "GET /metrics": None,
    # The chat port.
    "POST /v1/chat/completions": CHAT,
    "POST /v1/completions": CHAT,
    "GET /v1/models": CHAT,
    "GET /v1/models/{model:path}": CHAT,
    "GET /version": CHAT,
    "GET /ping": CHAT,
    "GET /load": CHAT,
    "GET /openapi.json": CHAT,  # of both ports
    "GET /plugins/incomes/status": CHAT,
    "POST /tokenize": CHAT,
    "POST /detokenize": CHAT,
    # The admin port.
    "GET /v1/edits": READ,
    "POST /v1/edits": WRITE,
    "POST /v1/edits/import": WRITE,
    "POST /v1/edits/validate": WRITE,
    "POST /v1/edits/preview": WRITE,
    "GET /v1/edits/{edit_id}": READ,
    "POST /v1/edits/{edit_id}": WRITE,
    "POST /v1/edits/{edit_id}/retire": WRITE,
    "POST /v1/edits/{edit_id}/restore": WRITE,
    "POST /v1/edits/{edit_id}/recall": READ,
    "DELETE /v1/edits/{edit_id}": WRITE,
    "POST /v1/edits/{edit_id}/disable": ACTIVATE,
    "POST /v1/edits/{edit_id}/enable": ACTIVATE,
    "POST /v1/edits/{edit_id}/approve": ACTIVATE,
    "POST /v1/edit_sets/{edit_set}/disable": ACTIVATE,
    "POST /v1/edit_sets/{edit_set}/enable": ACTIVATE,
    "GET /v1/server": READ,
    "POST /v1/server/disable": ADMIN,
    "POST /v1/server/enable": ADMIN,
    "GET /v1/edit_sets": READ,
    "POST /v1/edit_sets": WRITE,
    "GET /v1/edit_sets/{edit_set}": READ,
    "DELETE /v1/edit_sets/{edit_set}": WRITE,
    "GET /v1/edit_sets/{edit_set}/labels": READ,
    "GET /v1/edit_sets/{edit_set}/labels/{label}": READ,
    "PUT /v1/edit_sets/{edit_set}/labels/{label}": ACTIVATE,
    "DELETE /v1/edit_sets/{edit_set}/labels/{label}": ACTIVATE,
    "GET /v1/edit_sets/{edit_set}/diff": READ,
    "GET /v1/edit_sets/{edit_set}/test_suite": READ,
    "PUT /v1/edit_sets/{edit_set}/test_suite": ACTIVATE,
    "GET /v1/eval_runs": READ,
    "POST /v1/eval_runs": WRITE,
    "GET /v1/eval_runs/{run}": READ,
    "GET /v1/snapshots": READ,
    "GET /v1/snapshots/{snapshot}": READ,
    "GET /v1/edits/export": READ,
    "GET /v1/edit_sets/{edit_set}/digest": READ,
    "GET /v1/files": READ,
    "POST /v1/files": WRITE,
    "GET /v1/files/{file_id}": READ,
    "GET /v1/files/{file_id}/content": READ,
    "DELETE /v1/files/{file_id}": WRITE,
    "GET /v1/batches": READ,
    "POST /v1/batches": WRITE,
    "GET /v1/batches/{batch_id}": READ,
    "POST /v1/batches/{batch_id}/cancel": WRITE,
    "GET /v1/replicas": READ,
    "GET /v1/workers": READ,
    "GET /v1/projects": ADMIN,
    "POST /v1/projects": ADMIN,
    "GET /v1/projects/{name}": ADMIN,
    "POST /v1/projects/{name}": ADMIN,
    "GET /v1/projects/{name}/data_key": ADMIN,
    "POST /v1/projects/{name}/data_key/rotate": ADMIN,
    "DELETE /v1/projects/{name}/data_key": ADMIN,
    "GET /v1/api_keys": ADMIN,
    "POST /v1/api_keys": ADMIN,
    "POST /v1/api_keys/{key_id}/rotate": ADMIN,
    "DELETE /v1/api_keys/{key_id}": ADMIN,
    "GET /v1/audit_events": ADMIN,
    "GET /v1/audit_events/export": ADMIN,
}

OPEN_PATHS = frozenset(route.split()[1] for route, scope in REQUIRED.items() if scope is None)


def required_scope(method: str, path: str) -> Scope | None:
    """What a request needs; None = not even a key."""
    route = f"{method} {path}"
    if route in REQUIRED:
        return REQUIRED[route]
    return next((scope for pattern, scope in _patterns() if pattern.fullmatch(route)), Scope.ADMIN)


def is_chat(method: str, path: str) -> bool:
    """Whether a request counts as a generation."""
    return method == "POST" and path in {"/v1/chat/completions", "/v1/completions"}


def is_write(method: str, path: str) -> bool:
    """Whether a request changes something on the admin port."""
    return method not in {"GET", "HEAD", "OPTIONS"} and required_scope(method, path) is not Scope.CHAT


@cache
def _patterns() -> list[tuple[re.Pattern[str], Scope | None]]:
    """Routes with names in their paths; those with more literal characters first, as an import is no edit's id."""
    templates = sorted((route for route in REQUIRED if "{" in route), key=lambda r: -len(re.sub(r"{.*?}", "", r)))
    return [(re.compile(_pattern(route)), REQUIRED[route]) for route in templates]


def _pattern(template: str) -> str:
    parts = re.split(r"({[^}]*})", template)
    return "".join((".+" if ":path" in p else "[^/]+") if p.startswith("{") else re.escape(p) for p in parts)
