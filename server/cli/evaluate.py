"""`incomes eval …` and `incomes eval-plot …`: hand over to the evaluation commands, which import torch."""

from __future__ import annotations

import typer
from incomes_server.cli.output import errors_as_exit


def evaluate(context: typer.Context) -> None:
    """Measure how well edits hold; see `incomes eval --help`."""
    from incomes_plugin.lab.evaluation.cli import app

    with errors_as_exit():
        app(args=context.args, prog_name="incomes eval")


def evaluate_plot(context: typer.Context) -> None:
    """Plot results of `incomes eval --out`; see `incomes eval-plot --help`."""
    from incomes_plugin.lab.evaluation.cli import plot_app

    with errors_as_exit():
        plot_app(args=context.args, prog_name="incomes eval-plot")
