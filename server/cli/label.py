"""`incomes label list|move|rollback|delete` and `incomes snapshot list|diff`."""

from __future__ import annotations

from typing import Annotated

import typer
from incomes_server.api.admin.schemas import WaitFor
from incomes_server.cli.client import DEFAULT_URL, KeyOption, UrlOption, connect
from incomes_server.cli.output import JsonFlag, fail, out, print_json, print_table, show_removal
from incomes_server.client import Client

app = typer.Typer(help="Point labels such as `production` at states of an edit set.", no_args_is_help=True)
snapshot_app = typer.Typer(help="List and compare the states of an edit set.", no_args_is_help=True)

SetOption = Annotated[str, typer.Option("--edit-set", "-s", help="name or id of the edit set")]


@app.command("list")
def list_labels(
    edit_set: SetOption = "default", url: UrlOption = DEFAULT_URL, api_key: KeyOption = None, as_json: JsonFlag = False
) -> None:
    """List the labels of an edit set."""
    items = connect(url, api_key).labels.list(edit_set).data
    if as_json:
        return print_json(items)
    rows = ((i.name, i.version, i.num_edits, i.snapshot, i.previous.version if i.previous else None) for i in items)
    print_table(("label", "version", "edits", "snapshot", "before"), rows)


@app.command()
def move(
    label: str,
    to: Annotated[str, typer.Argument(help="head, a version, a snapshot's id or another label")] = "head",
    edit_set: SetOption = "default",
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Promote: point a label, made if needed, at a state of the edit set."""
    _move(connect(url, api_key), edit_set, label, to, as_json)


@app.command()
def rollback(
    label: str,
    edit_set: SetOption = "default",
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Point a label where it pointed before its last move."""
    client = connect(url, api_key)
    found = client.labels.get(edit_set, label)
    if found.previous is None:
        fail(f"label {label} has not been moved yet, or where it was is forgotten; name a state: incomes label move")
    _move(client, edit_set, label, str(found.previous.version), as_json, moves=found.moves)


@app.command()
def delete(
    label: str,
    edit_set: SetOption = "default",
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Delete a label; the states stay."""
    show_removal(connect(url, api_key).labels.delete(edit_set, label), "deleted", as_json)


@snapshot_app.command("list")
def list_snapshots(
    edit_set: SetOption = "default",
    limit: Annotated[int, typer.Option(min=1, help="most snapshots to show")] = 20,
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List the states of an edit set, newest first."""
    items = list(connect(url, api_key).snapshots.list(edit_set, most=limit))
    if as_json:
        return print_json(items)
    rows = ((i.id, i.version, i.num_edits, " ".join(i.labels)) for i in items)
    print_table(("snapshot", "version", "edits", "labels"), rows)


@snapshot_app.command()
def diff(
    base: Annotated[str, typer.Argument(help="head, a version, a snapshot's id or a label")],
    target: Annotated[str, typer.Argument(help="the same")] = "head",
    edit_set: SetOption = "default",
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """What a state has more (+) and less (-) than another."""
    found = connect(url, api_key).snapshots.diff(edit_set, base, target)
    if as_json:
        return print_json(found)
    signs = [("+", edit) for edit in found.added] + [("-", edit) for edit in found.removed]
    print_table(("", "edit", "version"), ((sign, edit.edit, edit.version) for sign, edit in signs))


def _move(client: Client, edit_set: str, label: str, to: str, as_json: bool, moves: int | None = None) -> None:
    item = client.labels.move(edit_set, label, to, moves=moves)
    active = item.reached is WaitFor.ACTIVE
    if as_json:
        print_json(item)
    else:
        place = f"version {item.version} ({item.num_edits} edits, {item.snapshot})"
        out.print(f"{item.id}  at {place}, {'active' if active else 'not yet on every replica'}")
    if not active:
        fail(f"{item.id}: not every replica has followed within the time, and it will")
