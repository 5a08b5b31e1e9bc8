"""The layers both ports share: authentication, probes, request id."""

import httpx
import pytest
from incomes_server.api.http.auth import AuthMiddleware
from incomes_server.api.http.health import HealthMiddleware
from incomes_server.api.http.readiness import CHECKS, STAGES, Readiness
from incomes_server.api.http.request_id import RequestIdMiddleware
from incomes_server.api.http.scopes import REQUIRED
from incomes_server.auth.keys import ApiKey, KeyRing, StoredKey, Tenancy, digest_of, new_secret
from incomes_server.auth.principal import Scope
from starlette.responses import JSONResponse


async def inner(scope, receive, send):
    await JSONResponse({"project": scope["state"]["project"], "id": scope["state"]["request_id"]})(scope, receive, send)


def client(readiness=None):
    app = AuthMiddleware(inner, KeyRing([ApiKey("acme", "k1")]))
    app = RequestIdMiddleware(HealthMiddleware(app, readiness or Readiness()))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def test_project_comes_from_the_key_alone():
    headers = {"authorization": "Bearer k1", "x-project": "zen"}
    response = await client().get("/v1/edits?project=zen", headers=headers)
    assert response.json()["project"] == "acme"


async def test_refusal_has_the_envelope_and_an_id():
    response = await client().get("/v1/edits")
    assert response.status_code == 401
    assert response.json()["error"]["code"] == "invalid_api_key"
    assert response.json()["error"]["type"] == "authentication_error"
    assert response.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize(("given", "kept"), [("abc-1", True), ("a b", False), ("x" * 200, False)])
async def test_request_id(given, kept):
    response = await client().get("/", headers={"authorization": "Bearer k1", "x-request-id": given})
    assert (response.headers["x-request-id"] == given) is kept
    assert response.headers["x-request-id"] == response.json()["id"]


async def test_probes_need_no_key_and_name_what_is_missing():
    readiness = Readiness()
    assert (await client(readiness).get("/livez")).status_code == 200
    response = await client(readiness).get("/readyz")
    assert response.status_code == 503
    assert set(response.json()["checks"]) == {*STAGES, *CHECKS, "changes"}
    assert response.json()["checks"]["canary"] == {"ok": False, "reason": "not started"}
    for stage in STAGES:
        readiness.passed(stage)
    assert (await client(readiness).get("/readyz")).json()["ready"] is True


async def test_a_watched_part_that_dies_closes_readiness():
    readiness = Readiness()
    for stage in STAGES:
        readiness.passed(stage)
    readiness.watch("engine", lambda: "died")
    response = await client(readiness).get("/readyz")
    assert (response.status_code, response.json()["checks"]["engine"]["reason"]) == (503, "died")


@pytest.mark.parametrize("scope", Scope)
async def test_each_route_is_open_to_its_scope_alone(scope):
    """A walk over both ports: a key with one scope, on every route."""
    secret = new_secret()
    key = StoredKey("key_1", "acme", "one", (scope,), digest_of(secret), 0)

    async def load(known):
        return None if known else Tenancy(1, (key,), had_keys=True)

    app = RequestIdMiddleware(AuthMiddleware(inner, KeyRing([], load)))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as asking:
        for route, needed in REQUIRED.items():
            if needed is None:
                continue
            method, path = route.split()
            answer = await asking.request(method, path, headers={"authorization": f"Bearer {secret}"})
            allowed = scope in (needed, Scope.ADMIN)
            assert answer.status_code == (200 if allowed else 403), route
            assert allowed or answer.json()["error"]["code"] == "permission_denied"
