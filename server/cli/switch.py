"""Kill switches of an edit, an edit set and the server, from one table; and the second person, who approves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer
from incomes_server.api.admin.schemas import EditObject, WaitFor
from incomes_server.cli.client import DEFAULT_URL, KeyOption, UrlOption, connect
from incomes_server.cli.edit import TimeoutOption, VersionOption
from incomes_server.cli.output import JsonFlag, fail, out, print_json, print_record
from incomes_server.client import Client

server_app = typer.Typer(help="Switch all edits of the server off and on.", no_args_is_help=True)

_OFF = "Kill switch: no later request reads "
SWITCHES: dict[str, tuple[str, Callable[[Client], Any], str]] = {
    "edit disable": (f"{_OFF}the edit.", lambda client: client.edits.disable, "switched off"),
    "edit enable": ("Switch an edit on again.", lambda client: client.edits.enable, "switched on"),
    "edit-set disable": (f"{_OFF}any edit of the set.", lambda client: client.edit_sets.disable, "switched off"),
    "edit-set enable": ("Switch a set on again.", lambda client: client.edit_sets.enable, "switched on"),
    "server disable": (f"{_OFF}any edit of any project.", lambda client: client.server.disable, "switched off"),
    "server enable": ("Switch the server's edits on again.", lambda client: client.server.enable, "switched on"),
}
"""By command: what it does, the method of the client, and what was done then."""


def add_switches(app: typer.Typer, noun: str) -> None:
    """Give a group its `disable` and `enable`."""
    for name, (help_text, method, done) in SWITCHES.items():
        if name.startswith(f"{noun} "):
            app.command(name.rpartition(" ")[2], help=help_text)(_COMMANDS[noun](method, done))


def _of_edit(method: Callable[[Client], Any], done: str) -> Callable[..., None]:
    def command(
        edit_id: str,
        version: VersionOption = None,
        timeout_s: TimeoutOption = 60.0,
        url: UrlOption = DEFAULT_URL,
        api_key: KeyOption = None,
        as_json: JsonFlag = False,
    ) -> None:
        _show(method(connect(url, api_key))(edit_id, version=version, timeout_s=timeout_s), done, as_json)

    return command


def _of_set(method: Callable[[Client], Any], done: str) -> Callable[..., None]:
    def command(
        name: Annotated[str, typer.Argument(help="name or id")],
        url: UrlOption = DEFAULT_URL,
        api_key: KeyOption = None,
        as_json: JsonFlag = False,
    ) -> None:
        item = method(connect(url, api_key))(name)
        print_json(item) if as_json else out.print(f"{item.id}  {done}")

    return command


def _of_server(method: Callable[[Client], Any], done: str) -> Callable[..., None]:
    def command(
        timeout_s: TimeoutOption = 60.0,
        url: UrlOption = DEFAULT_URL,
        api_key: KeyOption = None,
        as_json: JsonFlag = False,
    ) -> None:
        item = method(connect(url, api_key))(timeout_s=timeout_s)
        print_json(item) if as_json else out.print(f"all edits  {done}")
        _check_reached(item, "the server")

    return command


_COMMANDS = {"edit": _of_edit, "edit-set": _of_set, "server": _of_server}
add_switches(server_app, "server")


@server_app.command("get")
def get_server(url: UrlOption = DEFAULT_URL, api_key: KeyOption = None, as_json: JsonFlag = False) -> None:
    """Show whether the server's edits are switched off."""
    item = connect(url, api_key).server.get()
    print_json(item) if as_json else print_record({"disabled": item.disabled})


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


def _show(item: EditObject, done: str, as_json: bool) -> None:
    """Say what was done; status 1 when not every replica knows it within the time."""
    print_json(item) if as_json else out.print(f"{item.id}  version {item.version}  {done}")
    _check_reached(item, item.id)


def _check_reached(item: Any, what: str) -> None:
    if item.reached is not WaitFor.ACTIVE:
        fail(f"{what}: not every replica has followed within the time, and it will")
