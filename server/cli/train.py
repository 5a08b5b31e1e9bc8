"""`incomes train …`: hands over to the training command, which imports torch."""

from __future__ import annotations

import typer
from incomes_server.cli.output import ExitCode, fail

PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


def train(context: typer.Context) -> None:
    """Make a checkpoint edit-capable; see `incomes train --help`."""
    try:
        from incomes_plugin.training.cli import app
    except ModuleNotFoundError as error:
        if error.name != "incomes_plugin.training.cli":
            raise
        fail("this installation has no training command", ExitCode.FAILED)
    app(args=context.args, prog_name="incomes train")
