"""The `incomes` command: nouns and top-level verbs."""

from __future__ import annotations

from importlib.metadata import version as installed_version
from typing import Annotated

import typer
from incomes_server.cli import adapt, config, demo, doctor, edit, edit_set, evaluate, facts, plan, serve, transplant
from incomes_server.cli.output import out

PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
"""Settings of commands that parse their own arguments, so that torch is imported only when one of them runs."""

app = typer.Typer(
    name="incomes",
    help="Live knowledge editing for language models served by vLLM.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # locals may hold an edit's text or a key
)
app.add_typer(edit.app, name="edit")
app.add_typer(edit_set.app, name="edit-set")
app.add_typer(config.app, name="config")
app.command("serve", epilog=serve.EPILOG)(serve.serve)
app.command("demo")(demo.demo)
app.command("doctor")(doctor.doctor)
app.command("adapt", context_settings=PASS_ON, add_help_option=False)(adapt.adapt)
app.command("eval", context_settings=PASS_ON, add_help_option=False)(evaluate.evaluate)
app.command("eval-plot", context_settings=PASS_ON, add_help_option=False)(evaluate.evaluate_plot)
app.command("facts", context_settings=PASS_ON, add_help_option=False)(facts.facts)
app.command("plan", context_settings=PASS_ON, add_help_option=False)(plan.plan)
app.command("transplant", context_settings=PASS_ON, add_help_option=False)(transplant.transplant)


@app.callback(invoke_without_command=True)
def root(show_version: Annotated[bool, typer.Option("--version", help="print the version and exit")] = False) -> None:
    """Live knowledge editing for language models served by vLLM."""
    if show_version:
        out.print(installed_version("incomes"))
        raise typer.Exit
