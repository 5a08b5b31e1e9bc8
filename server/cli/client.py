"""The commands' connection to the admin API: httpx, the key from the environment, errors as `IncomesError`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from incomes_plugin import errors

DEFAULT_URL = "http://127.0.0.1:8001"

UrlOption = Annotated[str, typer.Option("--url", envvar="INCOMES_ADMIN_URL", help="address of the admin API")]
KeyOption = Annotated[
    str | None,
    typer.Option("--api-key", envvar="INCOMES_API_KEY", help="API key", show_envvar=True, show_default=False),
]


@dataclass(frozen=True)
class AdminClient:
    """Calls of the admin API."""

    url: str
    api_key: str | None

    def call(self, method: str, path: str, **kwargs: Any) -> dict[str, Any]:
        """One request.

        Raises:
            NotReady: nothing answers at the address.
            InvalidValue: a text that is not in the terminal's encoding, or no address.
            IncomesError: what the server answered, by its code.
        """
        timeout = kwargs.pop("timeout", 60.0)
        params = {k: v for k, v in kwargs.pop("params", {}).items() if v is not None}
        try:
            response = httpx.request(
                method, self.url + path, headers=self._headers(), timeout=timeout, params=params, **kwargs
            )
        except httpx.HTTPError as error:
            raise errors.NotReady(
                f"no answer from {self.url} ({error}); is `incomes serve` running? See --url"
            ) from error
        except UnicodeEncodeError as error:
            raise errors.InvalidValue("the text is not in this terminal's encoding (see `locale`)") from error
        except httpx.InvalidURL as error:
            raise errors.InvalidValue(f"{self.url} is no address: {error}; see --url") from error
        if response.is_error:
            raise response_error(response)
        return response.json()

    def pages(self, path: str, limit: int, **params: Any) -> Iterator[dict[str, Any]]:
        """Items of a list, page by page, at most `limit`."""
        after = None
        while limit > 0:
            page = self.call("GET", path, params={**params, "limit": min(limit, 100), "after": after})
            yield from page["data"]
            limit -= len(page["data"])
            after = page["last_id"]
            if not page["has_more"]:
                return

    def _headers(self) -> dict[str, str]:
        key = self.api_key or _key_from_file()
        return {"authorization": f"Bearer {key}"} if key else {}


def response_error(response: httpx.Response) -> errors.IncomesError:
    """The error class of the answer's `code`, so that exit codes follow it."""
    try:
        content = response.json()["error"]
    except (json.JSONDecodeError, KeyError, TypeError):
        return errors.IncomesError(f"HTTP {response.status_code} from {response.url}")
    classes = {cls.code: cls for cls in _all_errors(errors.IncomesError)}
    kind = classes.get(content.get("code"), errors.IncomesError)
    return kind(f"{content['message']} [{content['code']}]", param=content.get("param"))


def _all_errors(cls: type[errors.IncomesError]) -> Iterator[type[errors.IncomesError]]:
    yield cls
    for sub in cls.__subclasses__():
        yield from _all_errors(sub)


def _key_from_file() -> str | None:
    path = os.environ.get("INCOMES_API_KEY_FILE")
    return Path(path).read_text().strip() if path else None
