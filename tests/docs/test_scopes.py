"""Every route of both ports has a scope in the one table, and the table names no route that is not there."""

from incomes_server.api.admin.app import build_admin_app
from incomes_server.api.chat.routes import GENERATION, PASSED
from incomes_server.api.http.readiness import Readiness
from incomes_server.api.http.scopes import OPEN_PATHS, REQUIRED, required_scope
from incomes_server.auth.principal import Scope
from incomes_server.settings import Settings
from starlette.routing import Route


def routes() -> set[str]:
    """`METHOD path` of what either port serves."""
    admin = build_admin_app(None, Settings(), Readiness())
    found = {f"{m} {r.path}" for r in admin.routes if isinstance(r, Route) for m in (r.methods or set()) - {"HEAD"}}
    found |= {f"{method} {path}" for method, path in PASSED} | {f"POST {path}" for path in GENERATION}
    return found | {f"GET {path}" for path in OPEN_PATHS}


def test_every_route_is_in_the_table() -> None:
    assert len(routes()) > 25
    assert routes() == {route.replace("{model:path}", "{model}") for route in REQUIRED}


def test_only_probes_and_metrics_are_open() -> None:
    assert {"/livez", "/readyz", "/health", "/metrics"} == OPEN_PATHS


def test_paths_find_their_route() -> None:
    assert required_scope("GET", "/v1/models/org/model") is Scope.CHAT
    assert required_scope("GET", "/v1/edits/edit_1") is Scope.READ
    assert required_scope("POST", "/v1/edits/import") is Scope.WRITE
    for method, path in (("GET", "/v1/edits/a/b"), ("PUT", "/v1/edits/edit_1"), ("GET", "/"), ("GET", "/v1/edits/")):
        assert required_scope(method, path) is Scope.ADMIN, "what is not in the table is the administrator's"
