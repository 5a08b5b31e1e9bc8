"""`incomes facts …`: hands over to the fact memory commands, which import torch."""

from __future__ import annotations

import typer
from incomes_server.cli.output import errors_as_exit


def facts(context: typer.Context) -> None:
    """Associative memories of facts: capacity experiments, and your own facts; see `incomes facts --help`."""
    from incomes_plugin.lab.facts.cli import app

    with errors_as_exit():
        app(args=context.args, prog_name="incomes facts")
