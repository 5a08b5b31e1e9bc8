"""`incomes adapt …`: hands over to the command that trains an edit adapter, which imports torch."""

from __future__ import annotations

import typer
from incomes_server.cli.output import errors_as_exit


def adapt(context: typer.Context) -> None:
    """Give a base model its edit adapter; see `incomes adapt --help`."""
    from incomes_plugin.lab.adapt.cli import app

    with errors_as_exit():
        app(args=context.args, prog_name="incomes adapt")
