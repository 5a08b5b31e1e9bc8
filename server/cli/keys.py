"""`incomes key create|list|rotate|revoke` and `incomes project create|list|get|limit`."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from incomes_server.api.admin.tenancy_schemas import ApiKeyObject
from incomes_server.cli.client import DEFAULT_URL, KeyOption, UrlOption, connect
from incomes_server.cli.output import JsonFlag, err, fail, out, print_json, print_record, print_table

app = typer.Typer(help="Make, list, rotate and revoke API keys.", no_args_is_help=True)
projects = typer.Typer(help="Make and list projects (tenants).", no_args_is_help=True)

LimitOption = Annotated[int | None, typer.Option(min=1)]
ProjectOption = Annotated[str | None, typer.Option("--project", "-p", help="another project than the key's own")]


@app.command()
def create(
    name: str,
    scope: Annotated[list[str], typer.Option(help="chat, edits:read, edits:write, edits:activate or admin; repeat it")],
    project: ProjectOption = None,
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Make a key, and print it: it is shown this once."""
    _show(connect(url, api_key).keys.create(name, scope, project=project), as_json)


@app.command("list")
def list_keys(
    project: ProjectOption = None,
    limit: Annotated[int, typer.Option(min=1, help="most keys to show")] = 100,
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List a project's keys; those of the settings are not among them."""
    keys = list(connect(url, api_key).keys.list(project=project, most=limit))
    if as_json:
        return print_json(keys)
    rows = ((k.id, k.name, " ".join(k.scopes), _state(k)) for k in keys)
    print_table(("id", "name", "scopes", "state"), rows)


@app.command()
def rotate(
    key_id: str,
    grace_s: Annotated[int, typer.Option(min=0, help="seconds that the old key goes on working")] = 3600,
    project: ProjectOption = None,
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Make a key with the same scopes, and print it; the old one ends after a while."""
    _show(connect(url, api_key).keys.rotate(key_id, grace_s=grace_s, project=project), as_json)


@app.command()
def revoke(
    key_id: str,
    project: ProjectOption = None,
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """End a key: it works nowhere any more within a second."""
    key = connect(url, api_key).keys.revoke(key_id, project=project)
    print_json(key) if as_json else out.print(f"{key.id}  {key.name}  revoked", markup=False)


@projects.command("create")
def create_project(
    name: str, url: UrlOption = DEFAULT_URL, api_key: KeyOption = None, as_json: JsonFlag = False
) -> None:
    """Make a project; `incomes key create --project` then makes its first key."""
    item = connect(url, api_key).projects.create(name)
    print_json(item) if as_json else out.print(item.name, markup=False)


@projects.command("list")
def list_projects(
    limit: Annotated[int, typer.Option(min=1, help="most projects to show")] = 100,
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List the projects that were made here."""
    items = list(connect(url, api_key).projects.list(most=limit))
    if as_json:
        return print_json(items)
    print_table(("name", "created"), ((i.name, i.created_at) for i in items))


@projects.command("get")
def get_project(name: str, url: UrlOption = DEFAULT_URL, api_key: KeyOption = None, as_json: JsonFlag = False) -> None:
    """Show the limits that are set for a project."""
    item = connect(url, api_key).projects.limits(name)
    print_json(item) if as_json else print_record(item.model_dump(mode="json"))


@projects.command("limit")
def set_limits(
    name: str,
    max_edits: LimitOption = None,
    max_gist_bytes: LimitOption = None,
    max_running_requests: LimitOption = None,
    chat_requests_per_minute: LimitOption = None,
    writes_per_minute: LimitOption = None,
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Set the limits of a project; one that is not given is as the settings say."""
    item = connect(url, api_key).projects.set_limits(
        name, max_edits=max_edits, max_gist_bytes=max_gist_bytes, max_running_requests=max_running_requests,
        chat_requests_per_minute=chat_requests_per_minute, writes_per_minute=writes_per_minute,
    )  # fmt: skip
    print_json(item) if as_json else print_record(item.model_dump(mode="json"))


@projects.command("rotate-key")
def rotate_data_key(
    name: str, url: UrlOption = DEFAULT_URL, api_key: KeyOption = None, as_json: JsonFlag = False
) -> None:
    """Give a project a new data key; its texts follow while the server serves."""
    item = connect(url, api_key).projects.rotate_data_key(name)
    print_json(item) if as_json else print_record(item.model_dump(mode="json"))


@projects.command("data-key")
def get_data_key(name: str, url: UrlOption = DEFAULT_URL, api_key: KeyOption = None, as_json: JsonFlag = False) -> None:
    """Show a project's data key, and how many edit versions are not under it yet."""
    item = connect(url, api_key).projects.data_key(name)
    print_json(item) if as_json else print_record(item.model_dump(mode="json"))


@projects.command("erase")
def erase(
    name: str,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Delete all edit sets of a project and destroy its data keys; nobody can read its texts again."""
    if not yes:
        typer.confirm(f"Delete all edits of {name} for good?", abort=True, err=True)
    item = connect(url, api_key).projects.erase_data_key(name)
    print_json(item) if as_json else out.print(f"{name}  erased", markup=False)


def _show(key: ApiKeyObject, as_json: bool) -> None:
    if as_json:
        return print_json(key)
    if key.secret is None:
        fail(
            f"{key.id} was made, but its secret was lost with the first answer to this request; rotate it with "
            "--grace-s 0, or revoke it and make another"
        )
    err.print(f"{key.id}  project {key.project}, {' '.join(key.scopes)}; the key, shown this once:", markup=False)
    out.print(key.secret, markup=False)


def _state(key: ApiKeyObject) -> str:
    if key.revoked_at is not None:
        return "revoked"
    if key.expires_at is None:
        return "works"
    return f"works until {key.expires_at}" if key.expires_at > time.time() else "expired"
