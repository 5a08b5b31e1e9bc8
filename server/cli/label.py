"""`incomes label list|move|rollback|delete` and `incomes snapshot list|diff`."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from incomes_server.api.admin.schemas import Deleted
from incomes_server.cli.client import DEFAULT_URL, AdminClient, KeyOption, UrlOption
from incomes_server.cli.output import JsonFlag, fail, out, print_json, print_table, show_removal

app = typer.Typer(help="Point labels such as `production` at states of an edit set.", no_args_is_help=True)
snapshot_app = typer.Typer(help="List and compare the states of an edit set.", no_args_is_help=True)

SetOption = Annotated[str, typer.Option("--edit-set", "-s", help="name or id of the edit set")]


@app.command("list")
def list_labels(
    edit_set: SetOption = "default", url: UrlOption = DEFAULT_URL, api_key: KeyOption = None, as_json: JsonFlag = False
) -> None:
    """List the labels of an edit set."""
    items = AdminClient(url, api_key).call("GET", _path(edit_set))["data"]
    if as_json:
        return print_json(items)
    rows = (
        (i["name"], i["version"], i["num_edits"], i["snapshot"], (i["previous"] or {}).get("version")) for i in items
    )
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
    _move(AdminClient(url, api_key), edit_set, label, to, as_json)


@app.command()
def rollback(
    label: str,
    edit_set: SetOption = "default",
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Point a label where it pointed before its last move."""
    client = AdminClient(url, api_key)
    previous = client.call("GET", _path(edit_set, label))["previous"]
    if previous is None:
        fail(f"label {label} has not been moved yet, or where it was is forgotten; name a state: incomes label move")
    _move(client, edit_set, label, str(previous["version"]), as_json)


@app.command()
def delete(
    label: str,
    edit_set: SetOption = "default",
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Delete a label; the states stay."""
    item = AdminClient(url, api_key).call("DELETE", _path(edit_set, label))
    show_removal(Deleted.model_validate(item), "deleted", as_json)


@snapshot_app.command("list")
def list_snapshots(
    edit_set: SetOption = "default",
    limit: Annotated[int, typer.Option(min=1, help="most snapshots to show")] = 20,
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List the states of an edit set, newest first."""
    items = list(AdminClient(url, api_key).pages("/v1/snapshots", limit, edit_set=edit_set))
    if as_json:
        return print_json(items)
    rows = ((i["id"], i["version"], i["num_edits"], " ".join(i["labels"])) for i in items)
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
    path = f"/v1/edit_sets/{edit_set}/diff"
    found = AdminClient(url, api_key).call("GET", path, params={"from": base, "to": target})
    if as_json:
        return print_json(found)
    signs = [("+", edit) for edit in found["added"]] + [("-", edit) for edit in found["removed"]]
    print_table(("", "edit", "version"), ((sign, edit["edit"], edit["version"]) for sign, edit in signs))


def _path(edit_set: str, label: str | None = None) -> str:
    return f"/v1/edit_sets/{edit_set}/labels" + (f"/{label}" if label else "")


def _move(client: AdminClient, edit_set: str, label: str, to: str, as_json: bool) -> None:
    item: dict[str, Any] = client.call("PUT", _path(edit_set, label), json={"to": to})
    place = f"version {item['version']} ({item['num_edits']} edits, {item['snapshot']})"
    active = item["reached"] == "active"
    if as_json:
        print_json(item)
    else:
        out.print(f"{item['id']}  at {place}, {'active' if active else 'not yet on every replica'}")
    if not active:
        fail(f"{item['id']}: not every replica has followed within the time, and it will")
