"""The one map from `incomes_plugin.errors` to HTTP, and the OpenAI envelope `{error: {message, type, param, code}}`.

Used by both ports: as exception handlers of the admin app and, through `error_response`, by the chat gate.
"""

from __future__ import annotations

from typing import Any, cast

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from incomes_server.api.http.metrics import REFUSALS
from starlette.exceptions import HTTPException as StarletteHTTPException

from incomes_plugin import errors

STATUS: dict[type[errors.IncomesError], int] = {
    errors.EditTooLong: 413,
    errors.BodyTooLarge: 413,
    errors.RequestTimeout: 408,
    errors.IdempotencyKeyReuse: 422,
    errors.RouteNotSupported: 404,
    errors.InvalidRequest: 400,
    errors.AuthError: 401,
    errors.PermissionDenied: 403,
    errors.NotFound: 404,
    errors.EtagMismatch: 412,
    errors.Conflict: 409,
    errors.Overloaded: 429,
    errors.PoolFull: 503,
    errors.Unavailable: 503,
    errors.FingerprintMismatch: 422,
    errors.GistError: 500,
    errors.CompressionFailed: 500,
    errors.SelectionFailed: 500,
    errors.UnsupportedEngine: 503,
    errors.MethodNotAllowed: 405,
    errors.IncomesError: 500,
}
HTTP_CODES = {404: errors.RouteNotFound.code, 405: errors.MethodNotAllowed.code}
"""Codes of errors that the web framework raises itself."""

Envelope = dict[str, dict[str, str | None]]


def status_of(error: errors.IncomesError) -> int:
    """HTTP status: that of the nearest class of the error's ancestry in `STATUS`."""
    return next(STATUS[cls] for cls in type(error).__mro__ if cls in STATUS)


def envelope(error: errors.IncomesError) -> Envelope:
    """OpenAI's error body; `type` is the family (OpenAI's words), `code` the stable name."""
    return _body(error.message, type_of(status_of(error)), error.param, error.code)


def type_of(status: int) -> str:
    """Family of an error by its status, in OpenAI's words."""
    families = {401: "authentication_error", 403: "permission_error", 404: "not_found_error"}
    families |= {409: "conflict_error", 429: "rate_limit_error"}
    return families.get(status, "invalid_request_error" if status < 500 else "server_error")


def error_response(error: errors.IncomesError) -> JSONResponse:
    """The whole HTTP answer of an error. It is counted."""
    REFUSALS.labels(error.code).inc()
    headers = {"retry-after": str(error.retry_after_s)} if isinstance(error, errors.Overloaded) else {}
    if isinstance(
        error, errors.NotReady | errors.EngineLost | errors.GistStorageFailed
    ):  # another engine, or this one started anew, answers
        headers["retry-after"] = "1"
    return JSONResponse(envelope(error), status_of(error), headers)


def first_validation_error(details: list[dict[str, Any]]) -> errors.InvalidRequest:
    """A pydantic error list as one of our errors. The offending value is not repeated: it may be an edit's text."""
    # An unknown field is the likelier cause of a missing one, so it is named first.
    item = next((d for d in details if d["type"] == "extra_forbidden"), details[0])
    place, *path = [str(part) for part in item["loc"]] or ["body"]
    if place not in {"body", "query", "path", "header"}:
        place, path = "body", [place, *path]
    param = ".".join(path) or place
    if item["type"] == "extra_forbidden":
        kind = "query parameter" if place == "query" else "field"
        return errors.UnknownParameter(f"unknown {kind} `{param}`", param=param)
    message = str(item["msg"]).removeprefix("Value error, ")
    return errors.InvalidValue(f"`{param}`: {message}", param=param)


def install_error_handlers(app: FastAPI) -> None:
    """Every answer that is not a success has the envelope; `RequestIdMiddleware` sees to what nobody expected."""
    app.add_exception_handler(errors.IncomesError, on_incomes_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(StarletteHTTPException, _on_http_error)


async def on_incomes_error(_: Request, error: Exception) -> JSONResponse:
    """Handler of our own errors, for vLLM's app as well."""
    return error_response(cast(errors.IncomesError, error))


async def _on_validation_error(_: Request, error: Exception) -> JSONResponse:
    details = cast(RequestValidationError, error).errors()
    return error_response(first_validation_error(cast(list[dict[str, Any]], details)))


async def _on_http_error(_: Request, error: Exception) -> JSONResponse:
    http = cast(HTTPException, error)
    code = HTTP_CODES.get(http.status_code, "http_error")
    body = _body(str(http.detail), type_of(http.status_code), None, code)
    return JSONResponse(body, http.status_code, http.headers)


def _body(message: str, family: str, param: str | None, code: str) -> Envelope:
    return {"error": {"message": message, "type": family, "param": param, "code": code}}
