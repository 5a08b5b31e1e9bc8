"""`incomes batch list|get|wait|cancel` and `incomes file list|delete`: imports and their files."""

from __future__ import annotations

import json
import time
from typing import Annotated

import typer
from incomes_server.api.admin.batch_schemas import BatchObject
from incomes_server.cli.client import DEFAULT_URL, KeyOption, UrlOption, connect
from incomes_server.cli.output import ExitCode, JsonFlag, err, out, print_json, print_record, print_table
from incomes_server.client import Client
from incomes_server.edits.batch import ENDED
from rich.progress import MofNCompleteColumn, Progress

app = typer.Typer(help="Look at imports, wait for them, cancel them.", no_args_is_help=True)
file_app = typer.Typer(help="Look at uploaded files and files of results, delete them.", no_args_is_help=True)
LOOK_S = 0.5

ShownOption = Annotated[int, typer.Option(min=1, help="most to show")]


@app.command("list")
def list_batches(
    limit: ShownOption = 20, url: UrlOption = DEFAULT_URL, api_key: KeyOption = None, as_json: JsonFlag = False
) -> None:
    """List imports, newest first."""
    found = list(connect(url, api_key).batches.list(most=limit))
    if as_json:
        return print_json(found)
    rows = (
        (b.id, b.status, b.request_counts.completed, b.request_counts.failed, b.request_counts.total) for b in found
    )
    print_table(("id", "status", "completed", "failed", "lines"), rows)


@app.command()
def get(batch_id: str, url: UrlOption = DEFAULT_URL, api_key: KeyOption = None, as_json: JsonFlag = False) -> None:
    """Show how far an import is."""
    batch = connect(url, api_key).batches.get(batch_id)
    print_json(batch) if as_json else print_record(batch.model_dump(mode="json"))


@app.command()
def wait(batch_id: str, url: UrlOption = DEFAULT_URL, api_key: KeyOption = None, as_json: JsonFlag = False) -> None:
    """Wait for the end of an import and show the lines that failed; status 1 when there are any."""
    client = connect(url, api_key)
    follow_batch(client, client.batches.get(batch_id), as_json)


@app.command()
def cancel(batch_id: str, url: UrlOption = DEFAULT_URL, api_key: KeyOption = None, as_json: JsonFlag = False) -> None:
    """Read no more lines; edits that were added stay."""
    batch = connect(url, api_key).batches.cancel(batch_id)
    print_json(batch) if as_json else out.print(f"{batch.id}  {batch.status}")


@file_app.command("list")
def list_files(
    limit: ShownOption = 20, url: UrlOption = DEFAULT_URL, api_key: KeyOption = None, as_json: JsonFlag = False
) -> None:
    """List files, newest first."""
    found = list(connect(url, api_key).files.list(most=limit))
    if as_json:
        return print_json(found)
    print_table(
        ("id", "purpose", "status", "lines", "bytes", "name"),
        ((f.id, f.purpose, f.status, f.num_lines, f.bytes, f.filename) for f in found),
    )


@file_app.command()
def delete(file_id: str, url: UrlOption = DEFAULT_URL, api_key: KeyOption = None, as_json: JsonFlag = False) -> None:
    """Delete a file and what is in it; edits that came from it stay."""
    item = connect(url, api_key).files.delete(file_id)
    print_json(item) if as_json else out.print(f"{item.id}  deleted")


def follow_batch(client: Client, batch: BatchObject, as_json: bool) -> None:
    """Wait for the end with a progress bar, then show the lines that failed; status 1 when there are any."""
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=err, disable=not err.is_terminal) as progress:
        task = progress.add_task("lines", total=batch.request_counts.total)
        while batch.status not in ENDED:
            time.sleep(LOOK_S)
            batch = client.batches.get(batch.id)
            progress.update(task, completed=batch.request_counts.completed + batch.request_counts.failed)
    failed = [json.loads(line) for line in client.files.content(batch.error_file_id)] if batch.error_file_id else []
    counts = batch.request_counts
    if as_json:
        print_json({**batch.model_dump(mode="json"), "failed": failed})
    else:
        for line in failed:
            err.print(f"line {line['line']} ({line['custom_id']}): {line['error']['message']}", markup=False)
        out.print(f"{counts.completed} of {counts.total} lines {'valid' if batch.dry_run else 'imported'}")
    if counts.completed < counts.total:
        raise typer.Exit(int(ExitCode.FAILED))
