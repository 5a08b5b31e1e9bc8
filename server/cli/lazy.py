"""The `incomes` group. The lab's commands import torch: they are listed with a line each, and imported when called."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from incomes_server.cli.client import disconnect
from incomes_server.cli.output import errors_as_exit
from typer.core import TyperCommand, TyperGroup


@dataclass(frozen=True)
class Lazy:
    """A command of its own module.

    Attributes:
        module, app: where its typer app is.
        help: one line for the list of commands.
    """

    module: str
    app: str
    help: str


LAB = {
    "adapt": Lazy("incomes_plugin.lab.adapt.cli", "app", "Give a base model its edit adapter."),
    "capacity": Lazy("incomes_plugin.lab.verbatim.cli", "capacity_app", "How much memory vectors of a model hold."),
    "eval": Lazy("incomes_plugin.lab.evaluation.cli", "app", "Measure how well edits hold."),
    "eval-plot": Lazy("incomes_plugin.lab.evaluation.cli", "plot_app", "Plot results of `incomes eval --out`."),
    "facts": Lazy(
        "incomes_plugin.lab.facts.cli", "app", "Associative memories of facts: capacity, and your own facts."
    ),
    "plan": Lazy(
        "incomes_plugin.lab.facts.cli", "plan_app", "Bytes, milliseconds and room for N edits on this machine."
    ),
    "transplant": Lazy("incomes_plugin.lab.transplant.cli", "app", "Give a checkpoint another model's tokenizer."),
    "verbatim": Lazy("incomes_plugin.lab.verbatim.cli", "app", "Texts that come back to the byte, from vectors."),
}


class IncomesGroup(TyperGroup):
    """Own commands, then those of `LAB`. Whichever runs, an error of ours becomes a message and an exit code."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for name, lazy in LAB.items():
            self.add_command(TyperCommand(name, help=lazy.help))

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command that was called, imported now if it is a lazy one."""
        name, command, rest = super().resolve_command(ctx, args)
        if lazy := LAB.get(name or ""):
            command = typer.main.get_command(getattr(import_module(lazy.module), lazy.app))
        return name, command, rest

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        with errors_as_exit():
            try:
                return super().invoke(ctx)
            finally:
                disconnect()
