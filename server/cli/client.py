"""The commands' connection to the admin API: where it is and with which key, from options and environment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer
from incomes_server.client.calls import DEFAULT_TIMEOUT_S, Call
from incomes_server.client.client import DEFAULT_URL, Client

__all__ = ["DEFAULT_URL", "AdminClient", "KeyOption", "UrlOption", "connect"]

UrlOption = Annotated[str, typer.Option("--url", envvar="INCOMES_ADMIN_URL", help="address of the admin API")]
KeyOption = Annotated[
    str | None,
    typer.Option("--api-key", envvar="INCOMES_API_KEY", help="API key", show_envvar=True, show_default=False),
]


_open = ExitStack()


def connect(url: str, api_key: str | None) -> Client:
    """A client of the admin API until the command ends. `INCOMES_API_KEY_FILE` may name a file with the key."""
    return _open.enter_context(Client(url, api_key or _key_from_file()))


def disconnect() -> None:
    """Close what `connect` has opened; called when the command ends."""
    _open.close()


class AdminClient:
    """Calls of routes that the client has no typed method for, as dicts."""

    def __init__(self, url: str, api_key: str | None) -> None:
        self._client = connect(url, api_key)

    def call(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        content: bytes | None = None,
        params: dict[str, Any] | None = None,
        timeout: float = DEFAULT_TIMEOUT_S,
    ) -> dict[str, Any]:
        """One request. Raises what `Client.send` raises."""
        return self._client.send(
            Call(method, path, lambda answer: answer, params or {}, json=json, content=content, timeout_s=timeout)
        )

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


def _key_from_file() -> str | None:
    path = os.environ.get("INCOMES_API_KEY_FILE")
    return Path(path).read_text().strip() if path else None
