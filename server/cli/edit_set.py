"""`incomes edit-set create|list|get|digest|delete`."""

from __future__ import annotations

from typing import Annotated

import typer
from incomes_server.cli.client import DEFAULT_URL, KeyOption, UrlOption, connect
from incomes_server.cli.output import JsonFlag, out, print_json, print_record, print_table, show_removal
from incomes_server.edits.model import OnConflict

app = typer.Typer(help="Create, list, read and delete edit sets.", no_args_is_help=True)


@app.command()
def create(
    name: str,
    two_person: Annotated[bool, typer.Option("--two-person", help="what a key writes waits for another key")] = False,
    on_conflict: Annotated[OnConflict, typer.Option(help="of edits that conflict and do not say it")] = OnConflict.FLAG,
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Create an empty edit set."""
    item = connect(url, api_key).edit_sets.create(name, two_person=two_person, on_conflict=on_conflict)
    print_json(item) if as_json else out.print(f"{item.id}  {item.name}")


@app.command("list")
def list_sets(
    limit: Annotated[int, typer.Option(min=1, help="most edit sets to show")] = 100,
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List the project's edit sets."""
    items = list(connect(url, api_key).edit_sets.list(most=limit))
    if as_json:
        return print_json(items)
    rows = ((i.id, i.name, i.version, i.num_edits, i.snapshot) for i in items)
    print_table(("id", "name", "version", "edits", "snapshot"), rows)


@app.command()
def get(
    edit_set: Annotated[str, typer.Argument(help="name or id")],
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show one edit set."""
    item = connect(url, api_key).edit_sets.get(edit_set)
    print_json(item) if as_json else print_record(item.model_dump(mode="json"))


@app.command()
def digest(
    edit_set: Annotated[str, typer.Argument(help="name or id")],
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show a hash of what the active edits say: equal in two sets that say the same, on any server."""
    item = connect(url, api_key).edit_sets.digest(edit_set)
    print_json(item) if as_json else out.print(f"{item.content_sha256}  {item.num_edits} edits")


@app.command()
def delete(
    edit_set: Annotated[str, typer.Argument(help="name or id")],
    version: Annotated[
        int | None, typer.Option("--if-version", help="only if the set is at this version, else fail with status 1")
    ] = None,
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Retire every edit of the set and hide it; returns when no replica uses them."""
    show_removal(connect(url, api_key).edit_sets.delete(edit_set, version=version), "deleted", as_json)
