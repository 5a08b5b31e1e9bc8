"""`incomes edit-set create|list|delete`."""

from __future__ import annotations

from typing import Annotated

import typer
from incomes_server.cli.client import DEFAULT_URL, AdminClient, KeyOption, UrlOption
from incomes_server.cli.output import JsonFlag, out, print_json, print_table, show_removal

app = typer.Typer(help="Create, list and delete edit sets.", no_args_is_help=True)


@app.command()
def create(name: str, url: UrlOption = DEFAULT_URL, api_key: KeyOption = None, as_json: JsonFlag = False) -> None:
    """Create an empty edit set."""
    item = AdminClient(url, api_key).call("POST", "/v1/edit_sets", json={"name": name})
    print_json(item) if as_json else out.print(f"{item['id']}  {item['name']}")


@app.command("list")
def list_sets(
    limit: Annotated[int, typer.Option(min=1, help="most edit sets to show")] = 100,
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List the project's edit sets."""
    items = list(AdminClient(url, api_key).pages("/v1/edit_sets", limit))
    if as_json:
        return print_json(items)
    rows = ((i["id"], i["name"], i["version"], i["num_edits"], i["snapshot"]) for i in items)
    print_table(("id", "name", "version", "edits", "snapshot"), rows)


@app.command()
def delete(
    edit_set: Annotated[str, typer.Argument(help="name or id")],
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Retire every edit of the set and hide it; returns when no replica uses them."""
    item = AdminClient(url, api_key).call("DELETE", f"/v1/edit_sets/{edit_set}")
    show_removal(item, "deleted", as_json)
