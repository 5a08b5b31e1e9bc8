"""`incomes edit add|list|get|replace|retire|import`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from incomes_server.api.admin.schemas import EditObject, LineResult, WaitFor
from incomes_server.cli.client import DEFAULT_URL, KeyOption, UrlOption, connect
from incomes_server.cli.output import (
    ExitCode,
    JsonFlag,
    err,
    fail,
    out,
    print_json,
    print_record,
    print_table,
    show_removal,
)
from incomes_server.client import Client
from incomes_server.edits.model import EditStatus
from rich.progress import Progress

app = typer.Typer(help="Add, list, read, replace and retire edits.", no_args_is_help=True)

EditSetOption = Annotated[str | None, typer.Option("--edit-set", "-s", help="name or id of the edit set")]
WaitOption = Annotated[WaitFor, typer.Option("--wait", help="how far the write goes before the command returns")]
TimeoutOption = Annotated[float, typer.Option("--timeout-s", help="seconds to wait")]
VersionOption = Annotated[
    int | None, typer.Option("--if-version", help="only if the edit is at this version, else fail with status 1")
]
LINES_PER_REQUEST = 500


@app.command()
def add(
    text: Annotated[str, typer.Argument(help="the fact; `-` reads it from stdin")],
    edit_set: EditSetOption = None,
    external_id: Annotated[str | None, typer.Option(help="your own id of the edit")] = None,
    source_url: Annotated[str | None, typer.Option(help="where the document is that says so")] = None,
    document_id: Annotated[str | None, typer.Option(help="your own id of that document")] = None,
    author: Annotated[str | None, typer.Option(help="who answers for it")] = None,
    justification: Annotated[str | None, typer.Option(help="why it is written")] = None,
    supersedes: Annotated[list[str] | None, typer.Option(help="an edit that leaves when this one joins")] = None,
    wait: WaitOption = WaitFor.ACTIVE,
    timeout_s: TimeoutOption = 60.0,
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Add an edit, and wait until the model uses it."""
    text = sys.stdin.read() if text == "-" else text
    source = {name: value for name, value in {"url": source_url, "document_id": document_id}.items() if value}
    started = time.monotonic()
    edit = connect(url, api_key).edits.add(
        text, edit_set=edit_set, external_id=external_id, source=source or None, author=author,
        justification=justification, supersedes=supersedes or None, wait=wait, timeout_s=timeout_s,
    )  # fmt: skip
    _show_write(edit, wait, (time.monotonic() - started) * 1000, as_json)


@app.command()
def replace(
    edit_id: str,
    text: str,
    version: VersionOption = None,
    wait: WaitOption = WaitFor.ACTIVE,
    timeout_s: TimeoutOption = 60.0,
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Give an edit a new text, as its next version."""
    started = time.monotonic()
    edit = connect(url, api_key).edits.replace(edit_id, text, version=version, wait=wait, timeout_s=timeout_s)
    _show_write(edit, wait, (time.monotonic() - started) * 1000, as_json)


@app.command()
def retire(
    edit_id: str,
    version: VersionOption = None,
    timeout_s: TimeoutOption = 60.0,
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Take an edit out of service; returns when no replica uses it any more."""
    started = time.monotonic()
    edit = connect(url, api_key).edits.retire(edit_id, version=version, timeout_s=timeout_s)
    elapsed_ms = (time.monotonic() - started) * 1000
    show_removal(edit, f"version {edit.version}  retired", as_json, f" ({elapsed_ms:.0f} ms)")


@app.command()
def get(
    edit_id: str,
    version: Annotated[int | None, typer.Option(min=1, help="an older version")] = None,
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show one edit."""
    edit = connect(url, api_key).edits.get(edit_id, version=version)
    print_json(edit) if as_json else print_record(edit.model_dump(mode="json"))


@app.command("list")
def list_edits(
    edit_set: EditSetOption = None,
    status: Annotated[EditStatus | None, typer.Option(help="only edits in this state")] = None,
    document_id: Annotated[str | None, typer.Option(help="only those from this document")] = None,
    author: Annotated[str | None, typer.Option(help="only those by this author")] = None,
    limit: Annotated[int, typer.Option(min=1, help="most edits to show")] = 100,
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List edits, newest first."""
    edits = list(
        connect(url, api_key).edits.list(
            edit_set=edit_set, status=status, document_id=document_id, author=author, most=limit
        )
    )
    if as_json:
        return print_json(edits)
    print_table(("id", "version", "status", "text"), ((e.id, e.version, e.status, e.text) for e in edits))


@app.command("import")
def import_edits(
    file: Annotated[Path, typer.Argument(help="JSONL, one `{custom_id, text, …}` a line", exists=True, dir_okay=False)],
    edit_set: EditSetOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="check every line, add nothing")] = False,
    wait: WaitOption = WaitFor.ACTIVE,
    timeout_s: TimeoutOption = 600.0,
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Import a file of edits; every line is accounted for."""
    lines = [line for line in file.read_bytes().split(b"\n") if line.strip()]
    client = connect(url, api_key)
    results = list(import_lines(client, lines, edit_set=edit_set, dry_run=dry_run, wait=wait, timeout_s=timeout_s))
    failed = [(result, result.error) for result in results if result.error]
    if as_json:
        shown = [result.model_dump(mode="json") for result, _ in failed]
        print_json({"total": len(results), "completed": len(results) - len(failed), "failed": shown})
    else:
        for result, error in failed:
            err.print(f"line {result.line} ({result.custom_id}): {error['message']}", markup=False)
        out.print(f"{len(results) - len(failed)} of {len(results)} lines {'valid' if dry_run else 'imported'}")
    if failed:
        raise typer.Exit(int(ExitCode.FAILED))


def import_lines(
    client: Client,
    lines: list[bytes],
    *,
    edit_set: str | None = None,
    dry_run: bool = False,
    wait: WaitFor = WaitFor.ACTIVE,
    timeout_s: float = 600.0,
) -> Iterator[LineResult]:
    """Send lines in requests of `LINES_PER_REQUEST`, with a progress bar; yield the result of every line."""
    with Progress(console=err, disable=not err.is_terminal) as progress:
        task = progress.add_task("edits", total=len(lines))
        for start in range(0, len(lines), LINES_PER_REQUEST):
            chunk = lines[start : start + LINES_PER_REQUEST]
            answer = client.edits.import_lines(
                chunk, edit_set=edit_set, dry_run=dry_run, wait=wait, timeout_s=timeout_s
            )
            progress.advance(task, len(chunk))
            yield from (result.model_copy(update={"line": result.line + start}) for result in answer.data)


def _show_write(edit: EditObject, wait: WaitFor, elapsed_ms: float, as_json: bool) -> None:
    if as_json:
        print_json(edit)
    else:
        out.print(f"{edit.id}  version {edit.version}  {edit.status}, {edit.reached} ({elapsed_ms:.0f} ms)")
    order = list(WaitFor)
    if order.index(edit.reached or WaitFor.ACCEPTED) < order.index(wait):
        fail(f"{edit.id} is {edit.reached}, not yet {wait}; look again with `incomes edit get {edit.id}`")
