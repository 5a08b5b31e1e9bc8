"""The commands' connection to the admin API: where it is and with which key, from options and environment."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from incomes_server.client.client import DEFAULT_URL, Client

__all__ = ["DEFAULT_URL", "KeyOption", "UrlOption", "connect"]

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


def _key_from_file() -> str | None:
    path = os.environ.get("INCOMES_API_KEY_FILE")
    return Path(path).read_text().strip() if path else None
