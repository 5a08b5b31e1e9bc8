"""`incomes plan …`: hands over to the planner, which imports torch."""

from __future__ import annotations

import typer
from incomes_server.cli.output import errors_as_exit


def plan(context: typer.Context) -> None:
    """Bytes, milliseconds and room for N edits on this machine; see `incomes plan --help`."""
    from incomes_plugin.lab.facts.cli import plan_app

    with errors_as_exit():
        plan_app(args=context.args, prog_name="incomes plan")
