"""What both clients do around a request: headers, which failures are tried again and when, answers to values."""

from __future__ import annotations

import json
import random
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
from incomes_server.client.calls import Call
from pydantic import ValidationError

from incomes_plugin import errors

T = TypeVar("T")

RETRIED = frozenset({408, 429, 502, 503, 504})
FIRST_WAIT_S, LONGEST_WAIT_S = 0.25, 8.0
HttpOutcome = httpx.Response | httpx.TransportError


def request_of(http: httpx.Client | httpx.AsyncClient, call: Call[Any], form: dict[str, Any]) -> httpx.Request:
    """The request of a call; a write gets an Idempotency-Key, which its retries keep.

    Raises:
        InvalidValue: what is to be sent is no text, or the address is none.
    """
    headers = {"if-match": f'"{call.version}"'} if call.version is not None else {}
    if call.is_write:
        headers["idempotency-key"] = secrets.token_hex(16)
    params = {name: value for name, value in call.params.items() if value is not None}
    try:
        return http.build_request(
            call.method, call.path, params=params, json=call.json, content=call.content, headers=headers,
            timeout=call.timeout_s, **form,
        )  # fmt: skip
    except UnicodeEncodeError as error:
        raise errors.InvalidValue("the text is not in this terminal's encoding (see `locale`)") from error
    except httpx.InvalidURL as error:
        raise not_an_address(str(http.base_url), error) from error


@contextmanager
def form_of(upload: Path | None) -> Iterator[dict[str, Any]]:
    """A file as a form, if there is one. httpx reads it piece by piece, and anew when it is sent again."""
    if upload is None:
        yield {}
        return
    with upload.open("rb") as file:
        yield {"files": {"file": (upload.name, file)}, "data": {"purpose": "edits"}}


def wait_before_retry(outcome: HttpOutcome, attempt: int, retries: int) -> float | None:
    """Seconds after which to try again; None: this outcome is the last."""
    if attempt >= retries or isinstance(outcome, httpx.UnsupportedProtocol):
        return None
    if isinstance(outcome, httpx.Response):
        if outcome.status_code not in RETRIED:
            return None
        told = outcome.headers.get("retry-after", "")
        if told.isdigit():
            return min(float(told), LONGEST_WAIT_S)
    return min(FIRST_WAIT_S * 2**attempt, LONGEST_WAIT_S) * random.uniform(0.75, 1.0)


def result_of(call: Call[T], outcome: HttpOutcome) -> T:
    """What the call answers with.

    Raises:
        NotReady: nothing answers at the address.
        IncomesError: what the server answered, by its code.
    """
    if isinstance(outcome, httpx.TransportError):
        raise no_answer(outcome) from outcome
    if outcome.is_error:
        raise error_of(outcome)
    try:
        return call.parse(outcome.json())
    except (json.JSONDecodeError, ValidationError) as error:
        raise errors.IncomesError(
            f"{outcome.url} answered with something else than this version of the client knows"
        ) from error


def error_of(response: httpx.Response) -> errors.IncomesError:
    """The error class of the answer's `code`."""
    try:
        content = response.json()["error"]
        message, code = content["message"], content["code"]
    except (json.JSONDecodeError, KeyError, TypeError):
        return errors.IncomesError(f"HTTP {response.status_code} from {response.url}")
    kind = {cls.code: cls for cls in _all_errors(errors.IncomesError)}.get(code, errors.IncomesError)
    request = f", request {response.headers.get('x-request-id')}" if response.status_code >= 500 else ""
    return kind(f"{message} [{code}{request}]", param=content.get("param"))


def no_answer(error: httpx.TransportError) -> errors.NotReady:
    """What is told of an address at which nothing answers."""
    asked = error.request.url.copy_with(path="/", query=None)
    return errors.NotReady(f"no answer from {asked} ({error}); is `incomes serve` running? See --url")


def not_an_address(url: str, error: Exception) -> errors.InvalidValue:
    """What is told of an address that is none."""
    return errors.InvalidValue(f"{url} is no address: {error}; see --url")


def _all_errors(cls: type[errors.IncomesError]) -> Iterator[type[errors.IncomesError]]:
    yield cls
    for sub in cls.__subclasses__():
        yield from _all_errors(sub)
