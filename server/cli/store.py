"""`incomes store backup|restore`: they work on the database itself, beside a running server or before a start."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from incomes_server.cli.output import JsonFlag, out, print_json
from incomes_server.cli.serve import ConfigOption, StoreOption

if TYPE_CHECKING:
    from incomes_server.store.backup import BackupReport

app = typer.Typer(help="Back the edit store up, and restore it.", no_args_is_help=True)

FileArgument = Annotated[Path, typer.Argument(help="the backup: one file, an edit store itself")]


@app.command()
def backup(
    file: FileArgument, edit_store: StoreOption = None, config: ConfigOption = None, as_json: JsonFlag = False
) -> None:
    """Write one state of the edit store into a new file, while the server runs."""
    from incomes_server.settings import load_settings
    from incomes_server.store import backup as backups

    settings = load_settings(config, edit_store=edit_store).settings
    _show(backups.backup(settings.edit_store, file, settings.gist_storage), f"{file}: ", as_json)


@app.command()
def restore(
    file: FileArgument,
    edit_store: StoreOption = None,
    erased_in: Annotated[
        str | None, typer.Option(help="URL of a database used after the backup: erase what was erased there")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Fill a new edit store from a backup; start the server on it afterwards."""
    from incomes_server.store import backup as backups

    _show(backups.restore(file, _url(edit_store, config), erased_in), "restored: ", as_json)


def _url(edit_store: str | None, config: Path | None) -> str:
    from incomes_server.settings import load_settings

    return load_settings(config, edit_store=edit_store).settings.edit_store


def _show(report: BackupReport, before: str, as_json: bool) -> None:
    if as_json:
        return print_json(asdict(report))
    size = f", {report.num_bytes:,} bytes" if report.num_bytes else ""
    out.print(f"{before}{report.edit_sets} edit sets, {report.edits} edits{size}")
