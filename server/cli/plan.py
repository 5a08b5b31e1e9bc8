"""`incomes plan …`: hands over to the planner, which imports torch."""

from __future__ import annotations

import typer
from incomes_server.cli.output import errors_as_exit


def plan(context: typer.Context) -> None:
    """What N edits cost and how well they will be found; see `incomes plan --help`."""
    from incomes_plugin.facts.plan.cli import app

    with errors_as_exit():
        app(args=context.args, prog_name="incomes plan")
