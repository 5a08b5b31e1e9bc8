"""`incomes edit disable|enable|approve`, `incomes edit-set disable|enable`: kill switches, and the second person."""

from __future__ import annotations

from typing import Annotated

import typer
from incomes_server.api.admin.schemas import EditObject, WaitFor
from incomes_server.cli.client import DEFAULT_URL, KeyOption, UrlOption, connect
from incomes_server.cli.edit import TimeoutOption, VersionOption
from incomes_server.cli.output import JsonFlag, fail, out, print_json


def disable_edit(
    edit_id: str,
    version: VersionOption = None,
    timeout_s: TimeoutOption = 60.0,
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Kill switch: no later request reads the edit."""
    _show(connect(url, api_key).edits.disable(edit_id, version=version, timeout_s=timeout_s), "switched off", as_json)


def enable_edit(
    edit_id: str,
    version: VersionOption = None,
    timeout_s: TimeoutOption = 60.0,
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Switch an edit on again."""
    _show(connect(url, api_key).edits.enable(edit_id, version=version, timeout_s=timeout_s), "switched on", as_json)


def approve_edit(
    edit_id: str,
    version: Annotated[int, typer.Option("--if-version", min=1, help="version that you have looked at")],
    timeout_s: TimeoutOption = 60.0,
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Let a version of an edit of a two-person set in, if it still is the newest; another key wrote it."""
    _show(connect(url, api_key).edits.approve(edit_id, version=version, timeout_s=timeout_s), "approved", as_json)


def disable_set(
    name: Annotated[str, typer.Argument(help="name or id")],
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Kill switch: no later request reads any edit of the set."""
    item = connect(url, api_key).edit_sets.disable(name)
    print_json(item) if as_json else out.print(f"{item.id}  switched off")


def enable_set(
    name: Annotated[str, typer.Argument(help="name or id")],
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Switch a set on again."""
    item = connect(url, api_key).edit_sets.enable(name)
    print_json(item) if as_json else out.print(f"{item.id}  switched on")


def _show(item: EditObject, done: str, as_json: bool) -> None:
    """Say what was done; status 1 when not every replica knows it within the time."""
    print_json(item) if as_json else out.print(f"{item.id}  version {item.version}  {done}")
    if item.reached is not WaitFor.ACTIVE:
        fail(f"{item.id}: not every replica has followed within the time, and it will")
