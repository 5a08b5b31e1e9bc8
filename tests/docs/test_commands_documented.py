"""Every option of the commands that the lab parses stands in docs/cli.md; tests/server looks at the server's own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer

LINES = (Path(__file__).resolve().parents[2] / "docs" / "cli.md").read_text().splitlines()
APPS = {
    "incomes adapt": ("adapt.cli", "app"),
    "incomes capacity": ("verbatim.cli", "capacity_app"),
    "incomes eval": ("evaluation.cli", "app"),
    "incomes eval-plot": ("evaluation.cli", "plot_app"),
    "incomes facts": ("facts.cli", "app"),
    "incomes plan": ("facts.cli", "plan_app"),
    "incomes transplant": ("transplant.cli", "app"),
    "incomes verbatim": ("verbatim.cli", "app"),
}


def lab_app(name: str) -> typer.Typer:
    """The parser of a command of the lab, or of the group that it is in."""
    module, found = APPS[name] if name in APPS else next(value for key, value in APPS.items() if key.startswith(name))
    return getattr(import_module(f"incomes_plugin.lab.{module}"), found)


def commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    """A command, or those of a group."""
    subs = getattr(command, "commands", None)
    if not subs:
        yield path, command
    for name, sub in (subs or {}).items():
        yield from commands(sub, f"{path} {name}")


@pytest.mark.parametrize("name", APPS)
def test_options(name: str) -> None:
    for path, command in commands(typer.main.get_command(lab_app(name)), name):
        row = next((line for line in LINES if re.match(rf"\| `{path}[ `]", line)), "")
        assert row, f"{path} is not in docs/cli.md"
        named = {max(p.opts, key=len) for p in command.params if p.param_type_name == "option"}
        options = {option for option in named if option != "--help" and "completion" not in option}
        assert {option for option in options if not re.search(rf"{option}(?![\w-])", row)} == set()
