"""Which pages may call: a preflight needs no key, and is answered for the origins of the setting only."""

import httpx
import pytest
from fastapi import FastAPI
from incomes_server.api.admin.app import build_admin_app
from incomes_server.api.http.cors import with_cors
from incomes_server.api.http.readiness import Readiness
from incomes_server.settings import Settings

PREFLIGHT = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}


def client(app):
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server")


def admin_app(*origins):
    return build_admin_app(None, Settings(cors_origins=origins, api_keys=("a:k",)), Readiness())


@pytest.mark.parametrize(("origins", "allowed"), [(("https://a.example",), "https://a.example"), (("*",), "*")])
async def test_a_preflight_of_an_allowed_page(origins, allowed):
    async with client(admin_app(*origins)) as http:
        answer = await http.options("/v1/edits", headers={"origin": "https://a.example", **PREFLIGHT})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == allowed
        assert "authorization" in answer.headers["access-control-allow-headers"]
        assert "POST" in answer.headers["access-control-allow-methods"]
        refused = await http.get("/v1/edits", headers={"origin": "https://a.example"})
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == allowed
        assert "x-request-id" in refused.headers["access-control-expose-headers"]


@pytest.mark.parametrize("origins", [(), ("https://b.example",)])
async def test_other_pages_may_not(origins):
    async with client(admin_app(*origins)) as http:
        answer = await http.options("/v1/edits", headers={"origin": "https://a.example", **PREFLIGHT})
        assert answer.status_code in (400, 405)
        assert "access-control-allow-origin" not in answer.headers


def test_without_origins_the_app_is_untouched():
    app = FastAPI()
    assert with_cors(app, ()) is app
