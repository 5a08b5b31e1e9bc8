"""Refuses query parameters that a route does not declare, which FastAPI alone would ignore, and what is no text."""

from __future__ import annotations

from fastapi import Request
from fastapi.routing import APIRoute

from incomes_plugin.errors import InvalidValue, UnknownParameter


def refuse_nul(request: Request) -> None:
    """Dependency of every admin route: U+0000 in a path or a query, which PostgreSQL cannot compare with anything.

    Raises:
        InvalidValue: names the parameter.
    """
    for name, value in [*request.path_params.items(), *request.query_params.multi_items()]:
        if "\0" in f"{name}{value}":
            raise InvalidValue(f"`{name}`: the character U+0000 is not text", param=name)


def refuse_unknown_query(request: Request) -> None:
    """Dependency of every admin route.

    Raises:
        UnknownParameter: names the first parameter that the route's OpenAPI description lacks.
    """
    route = request.scope["route"]
    if not isinstance(route, APIRoute):
        return
    operation = request.app.openapi()["paths"][route.path_format][request.method.lower()]
    known = {p["name"] for p in operation.get("parameters", ()) if p["in"] == "query"}
    unknown = next((name for name in request.query_params if name not in known), None)
    if unknown is not None:
        choices = ", ".join(sorted(known)) or "none"
        raise UnknownParameter(f"unknown query parameter `{unknown}` (this route takes: {choices})", param=unknown)
