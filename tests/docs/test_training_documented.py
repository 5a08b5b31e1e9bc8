"""Every option of `incomes train` and every recipe stands in the documents."""

import re
from pathlib import Path

import pytest
import typer

from incomes_plugin.training.cli import Tune, app

DOCS = Path(__file__).resolve().parents[2] / "docs"


def options() -> list[str]:
    named = [option for parameter in typer.main.get_command(app).params for option in parameter.opts]
    return [option for option in named if option.startswith("--") and "completion" not in option]


@pytest.mark.parametrize("page", ["training.md", "cli.md"])
def test_options(page):
    text = (DOCS / page).read_text()
    assert len(options()) > 15
    missing = [option for option in options() if not re.search(rf"{re.escape(option)}(?![\w-])", text)]
    assert missing == []


def test_recipes():
    text = (DOCS / "training.md").read_text()
    assert [tune for tune in Tune if f"| `{tune}`" not in text] == []
