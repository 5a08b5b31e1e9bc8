"""The layers both ports share: authentication, probes, request id."""

import httpx
import pytest
from incomes_server.api.http.auth import AuthMiddleware
from incomes_server.api.http.health import HealthMiddleware
from incomes_server.api.http.readiness import CHECKS, STAGES, Readiness
from incomes_server.api.http.request_id import RequestIdMiddleware
from incomes_server.auth.keys import ApiKey, KeyRing
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
