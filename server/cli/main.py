"""The `incomes` command: nouns and top-level verbs."""

from __future__ import annotations

from importlib.metadata import version as installed_version
from typing import Annotated

import typer
from incomes_server.cli import (
    audit,
    batch,
    compress,
    config,
    demo,
    doctor,
    edit,
    edit_set,
    keys,
    label,
    replicas,
    serve,
    store,
    switch,
    trial,
)
from incomes_server.cli.lazy import IncomesGroup
from incomes_server.cli.output import out

app = typer.Typer(
    name="incomes",
    cls=IncomesGroup,
    help="Live knowledge editing for language models served by vLLM.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # locals may hold an edit's text or a key
)
switch.add_switches(edit.app, "edit")
switch.add_switches(edit_set.app, "edit-set")
edit.app.command("approve")(switch.approve_edit)
edit.app.command("validate")(trial.validate)
edit.app.command("preview")(trial.preview)
app.add_typer(edit.app, name="edit")
app.add_typer(edit_set.app, name="edit-set")
app.add_typer(batch.app, name="batch")
app.add_typer(batch.file_app, name="file")
app.add_typer(audit.app, name="audit")
app.add_typer(label.app, name="label")
app.add_typer(label.snapshot_app, name="snapshot")
app.add_typer(trial.suite_app, name="test-suite")
app.add_typer(trial.run_app, name="eval-run")
app.add_typer(switch.server_app, name="server")
app.add_typer(keys.app, name="key")
app.add_typer(keys.projects, name="project")
app.add_typer(store.app, name="store")
app.add_typer(config.app, name="config")
app.command("serve", epilog=serve.EPILOG)(serve.serve)
app.command("compress", epilog=serve.EPILOG)(compress.compress)
app.command("demo")(demo.demo)
app.command("doctor")(doctor.doctor)
app.command("replicas")(replicas.replicas)


@app.callback(invoke_without_command=True)
def root(show_version: Annotated[bool, typer.Option("--version", help="print the version and exit")] = False) -> None:
    """Live knowledge editing for language models served by vLLM."""
    if show_version:
        out.print(installed_version("incomes"))
        raise typer.Exit
