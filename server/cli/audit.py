"""`incomes audit list|export|verify`."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from incomes_server.api.admin.tenancy_schemas import ChangeObject
from incomes_server.cli.client import DEFAULT_URL, KeyOption, UrlOption, connect
from incomes_server.cli.output import JsonFlag, fail, out, print_json, print_table
from incomes_server.edits.audit import AuditEvent, Change, first_break

from incomes_plugin.errors import InvalidValue

app = typer.Typer(help="Read and check the audit log.", no_args_is_help=True)


@app.command("list")
def list_events(
    limit: Annotated[int, typer.Option(min=1, help="most events to show")] = 100,
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List who changed what, newest first."""
    events = list(connect(url, api_key).audit.list(most=limit))
    if as_json:
        return print_json(events)
    rows = ((e.sequence, e.created_at, e.actor, e.action, _targets(e.changes)) for e in events)
    print_table(("number", "at", "actor", "action", "changes"), rows)


@app.command()
def export(
    file: Annotated[Path, typer.Argument(help="file to write, JSONL", dir_okay=False)],
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
) -> None:
    """Write the project's whole audit log into a file, oldest first."""
    num_events = 0
    with file.open("w") as lines:
        for line in connect(url, api_key).audit.export():
            lines.write(line + "\n")
            num_events += 1
    out.print(f"{num_events} events written to {file}", markup=False)


@app.command()
def verify(
    file: Annotated[Path | None, typer.Argument(help="an export; default: the server's log", dir_okay=False)] = None,
    head: Annotated[str | None, typer.Option(help="hash that an event of the log must have, noted earlier")] = None,
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Check that no event was changed or removed. An end that was cut off shows only by `--head`."""
    lines = _lines_of(file) if file else connect(url, api_key).audit.export()
    events = [_event(line) for line in lines if line.strip()]
    problem = first_break(events)
    if problem is None and head is not None and head not in {event.hash for event in events}:
        problem = f"no event has the hash {head}: the end of the log was cut off, or it is another log"
    if problem is not None:
        fail(f"the audit log is not intact: {problem}")
    last = events[-1].hash if events else None
    if as_json:
        return print_json({"events": len(events), "head": last})
    out.print(f"{len(events)} events, intact; the last one's hash is {last}", markup=False)


def _lines_of(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidValue(f"{file} is not an export of an audit log: {error}") from error


def _event(line: str) -> AuditEvent:
    try:
        fields = {name: value for name, value in json.loads(line).items() if name != "object"}
        return AuditEvent(**{**fields, "changes": tuple(Change(**change) for change in fields["changes"])})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidValue(f"this is not an audit event of a version that is known here: {error}") from error


def _targets(changes: list[ChangeObject]) -> str:
    shown = [f"{c.target}: {c.before or '-'} -> {c.after or '-'}" for c in islice(changes, 3)]
    return "; ".join(shown) + (f"; {len(changes) - 3} more" if len(changes) > 3 else "")
