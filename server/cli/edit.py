"""`incomes edit add|list|get|replace|retire|import|export`."""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer
from incomes_server.api.admin.schemas import EditObject, WaitFor
from incomes_server.cli.batch import follow_batch
from incomes_server.cli.client import DEFAULT_URL, KeyOption, UrlOption, connect
from incomes_server.cli.output import JsonFlag, fail, out, print_json, print_record, print_table, show_removal
from incomes_server.edits.model import EditStatus, OnConflict
from incomes_server.edits.verbatim import VerbatimState

from incomes_plugin.gist.edit import EditKind

app = typer.Typer(
    help="Add, list, read, replace, retire, restore, switch, approve and erase edits.", no_args_is_help=True
)

EditSetOption = Annotated[str | None, typer.Option("--edit-set", "-s", help="name or id of the edit set")]
WaitOption = Annotated[WaitFor, typer.Option("--wait", help="how far the write goes before the command returns")]
TimeoutOption = Annotated[float, typer.Option("--timeout-s", help="seconds to wait")]
VersionOption = Annotated[
    int | None, typer.Option("--if-version", help="only if the edit is at this version, else fail with status 1")
]

ConflictOption = Annotated[
    OnConflict | None, typer.Option(help="if another edit of the set contradicts it or says the same")
]


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
    effective_from: Annotated[str | None, typer.Option(help="when it joins, as 2026-11-29T17:20:00Z")] = None,
    expires_at: Annotated[str | None, typer.Option(help="when it leaves")] = None,
    on_conflict: ConflictOption = None,
    verbatim: Annotated[bool, typer.Option("--verbatim", help="say it to the byte where it is asked for")] = False,
    title: Annotated[str | None, typer.Option(help="what a verbatim edit is found by")] = None,
    question: Annotated[list[str] | None, typer.Option(help="a question that a verbatim edit answers")] = None,
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
        justification=justification, supersedes=supersedes or None, effective_from=effective_from,
        expires_at=expires_at, on_conflict=on_conflict, kind="verbatim" if verbatim else None, title=title,
        questions=question or None, wait=wait, timeout_s=timeout_s,
    )  # fmt: skip
    _show_write(edit, wait, (time.monotonic() - started) * 1000, as_json)


@app.command()
def replace(
    edit_id: str,
    text: str,
    on_conflict: ConflictOption = None,
    verbatim: Annotated[bool | None, typer.Option("--verbatim/--fact", help="by default as it is")] = None,
    title: Annotated[str | None, typer.Option(help="what a verbatim edit is found by, if another")] = None,
    question: Annotated[list[str] | None, typer.Option(help="questions that it answers, if others")] = None,
    version: VersionOption = None,
    wait: WaitOption = WaitFor.ACTIVE,
    timeout_s: TimeoutOption = 60.0,
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Give an edit a new text, as its next version. A verbatim edit stays one, by the same title and questions."""
    started = time.monotonic()
    kind: EditKind | None = None if verbatim is None else "verbatim" if verbatim else "fact"
    edit = connect(url, api_key).edits.replace(
        edit_id, text, on_conflict=on_conflict, kind=kind, title=title, questions=question or None, version=version,
        wait=wait, timeout_s=timeout_s,
    )  # fmt: skip
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
def restore(
    edit_id: str,
    version: VersionOption = None,
    wait: WaitOption = WaitFor.ACTIVE,
    timeout_s: TimeoutOption = 60.0,
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Bring a retired edit back, as its next version."""
    started = time.monotonic()
    edit = connect(url, api_key).edits.restore(edit_id, version=version, wait=wait, timeout_s=timeout_s)
    _show_write(edit, wait, (time.monotonic() - started) * 1000, as_json)


@app.command()
def erase(
    edit_id: str,
    version: VersionOption = None,
    timeout_s: TimeoutOption = 60.0,
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Take an edit out of service and erase its text and gists; there is no way back."""
    gone = connect(url, api_key).edits.erase(edit_id, version=version, timeout_s=timeout_s)
    show_removal(gone, "erased", as_json)


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


@app.command()
def recall(
    edit_id: str,
    version: Annotated[int | None, typer.Option(min=1, help="an older version")] = None,
    timeout_s: TimeoutOption = 60.0,
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Write the text of a verbatim edit to stdout, to the byte; what it came from goes to stderr."""
    found = connect(url, api_key).edits.recall(edit_id, version=version, timeout_s=timeout_s)
    if as_json:
        return print_json(found)
    sys.stdout.buffer.write(found.text.encode())
    sys.stdout.flush()
    sys.stderr.write(f"{found.source}: {found.reason}\n" if found.reason else f"{found.source}\n")


@app.command("list")
def list_edits(
    edit_set: EditSetOption = None,
    status: Annotated[EditStatus | None, typer.Option(help="only edits in this state")] = None,
    document_id: Annotated[str | None, typer.Option(help="only those from this document")] = None,
    author: Annotated[str | None, typer.Option(help="only those by this author")] = None,
    conflict: Annotated[bool | None, typer.Option("--conflict/--no-conflict", help="only those that conflict")] = None,
    verbatim: Annotated[VerbatimState | None, typer.Option(help="only verbatim edits in this state")] = None,
    limit: Annotated[int, typer.Option(min=1, help="most edits to show")] = 100,
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List edits, newest first."""
    edits = list(
        connect(url, api_key).edits.list(
            edit_set=edit_set,
            status=status,
            document_id=document_id,
            author=author,
            conflict=conflict,
            verbatim=verbatim,
            most=limit,
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
    on_conflict: ConflictOption = None,
    follow: Annotated[bool, typer.Option("--wait/--no-wait", help="until every line is active, or failed")] = True,
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Import a file of edits; every line is accounted for. The server goes on also when this command ends."""
    client = connect(url, api_key)
    sent = client.files.upload(file)
    batch = client.batches.create(sent.id, edit_set=edit_set, dry_run=dry_run, on_conflict=on_conflict)
    if not follow:
        return print_json(batch) if as_json else out.print(f"{batch.id}  {batch.status}")
    follow_batch(client, batch, as_json)


@app.command()
def export(
    edit_set: EditSetOption = None,
    file: Annotated[Path | None, typer.Option("--out", help="file to write; stdout by default", dir_okay=False)] = None,
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
) -> None:
    """Write the active edits of a set as JSONL, which `incomes edit import` takes; the oldest first."""
    with file.open("w", encoding="utf-8") if file else nullcontext(sys.stdout) as target:
        for line in connect(url, api_key).edits.export(edit_set=edit_set):
            target.write(line + "\n")


def _show_write(edit: EditObject, wait: WaitFor, elapsed_ms: float, as_json: bool) -> None:
    if as_json:
        print_json(edit)
    else:
        out.print(f"{edit.id}  version {edit.version}  {edit.status}, {edit.reached} ({elapsed_ms:.0f} ms)")
        for conflict in edit.conflicts:
            out.print(f"  {conflict.kind} of {conflict.edit_id} ({conflict.score:.2f})")
    order = list(WaitFor)
    if order.index(edit.reached or WaitFor.ACCEPTED) < order.index(wait):
        fail(f"{edit.id} is {edit.reached}, not yet {wait}; look again with `incomes edit get {edit.id}`")
