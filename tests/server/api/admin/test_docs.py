"""The documents cannot drift: every route, field and error code is in docs/api.md, and openapi.json is current."""

from pathlib import Path

import pytest
from incomes_server.api.admin.app import build_admin_app
from incomes_server.api.admin.openapi import render
from incomes_server.api.chat.fields import OWN_FIELDS, EditsField
from incomes_server.api.chat.routes import GENERATION, PASSED
from incomes_server.api.http.errors import HTTP_CODES
from incomes_server.api.http.readiness import Readiness
from incomes_server.api.http.scopes import OPEN_PATHS
from incomes_server.settings import Settings

from incomes_plugin import errors

DOCS = Path(__file__).parents[4] / "docs"
API = (DOCS / "api.md").read_text()


def all_errors(cls=errors.IncomesError):
    return [cls] + [error for sub in cls.__subclasses__() for error in all_errors(sub)]


def admin_routes():
    paths = build_admin_app(None, Settings(), Readiness()).openapi()["paths"]
    return [f"{method.upper()} {path}" for path, methods in paths.items() for method in methods]


def test_openapi_is_current():
    committed = (DOCS / "openapi.json").read_text()
    assert committed == render(), "run: python -m incomes_server.api.admin.openapi > docs/openapi.json"


@pytest.mark.parametrize("code", sorted({e.code for e in all_errors()} | set(HTTP_CODES.values())))
def test_every_error_code_is_documented(code):
    assert f"`{code}`" in API


@pytest.mark.parametrize("route", admin_routes())
def test_every_admin_route_is_documented(route):
    assert f"`{route}`" in API


@pytest.mark.parametrize(
    "route",
    sorted([f"POST {p}" for p in GENERATION] + [f"{m} {p}" for m, p in PASSED] + [f"GET {p}" for p in OPEN_PATHS]),
)
def test_every_chat_route_is_documented(route):
    assert f"`{route}`" in API


@pytest.mark.parametrize("field", sorted(OWN_FIELDS | set(EditsField.model_fields)))
def test_every_chat_field_is_documented(field):
    assert field in API
