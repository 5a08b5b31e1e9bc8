"""`incomes transplant …`: hands over to the transplant command, which imports torch."""

from __future__ import annotations

import typer
from incomes_server.cli.output import errors_as_exit


def transplant(context: typer.Context) -> None:
    """Give a checkpoint another model's tokenizer; see `incomes transplant --help`."""
    from incomes_plugin.lab.transplant.cli import app

    with errors_as_exit():
        app(args=context.args, prog_name="incomes transplant")
