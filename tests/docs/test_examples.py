"""Commands that the documents show exist: `incomes …` with its options, and `make …` with its targets."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from incomes_server.cli.main import app

from tests.docs.test_commands_documented import APPS, lab_app

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAST = ROOT / "docs" / "experiments.md"
FENCED = re.compile(r"^```[a-z]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`([^`\n]+)`")
INCOMES = re.compile(r"^(?:\$ )?(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?incomes (?=[a-z])(.*)$")
MAKE = re.compile(r"^(?:\$ )?make ([a-z]+)")
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def shown(text: str) -> Iterator[str]:
    """Every line of code on a page, in blocks and within sentences."""
    for block in FENCED.findall(text):
        yield from block.splitlines()
    yield from INLINE.findall(FENCED.sub("", text))


def command_of(words: list[str]) -> tuple[Any, list[str]]:
    """The command that these words call, and what is left of them."""
    command: Any = typer.main.get_command(app)
    path = "incomes"
    while words and words[0] in getattr(command, "commands", {}):
        command, path = command.commands[words[0]], f"{path} {words[0]}"
        words = words[1:]
        if path in APPS or any(name.startswith(f"{path} ") for name in APPS):
            command = typer.main.get_command(lab_app(path))
    return command, words


def faults(line: str) -> list[str]:
    """What does not exist of a line that calls `incomes`."""
    words = shlex.split(line.split(" -- ")[0].split(" | ")[0].replace("…", ""), comments=True)
    command, rest = command_of(words)
    if hasattr(command, "commands"):
        return [f"no command {' '.join(words)}"] if rest and rest[0].isalpha() else []
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    return [word for word in rest if word.startswith("--") and word.split("=")[0] not in known]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_exist(page: Path) -> None:
    lines = [found.group(1) for found in map(INCOMES.match, shown(page.read_text())) if found]
    wrong = {line: faults(line) for line in lines if "(" not in line}
    assert {line: found for line, found in wrong.items() if found} == {}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_exist(page: Path) -> None:
    assert {found.group(1) for found in map(MAKE.match, shown(page.read_text())) if found} <= TARGETS


def test_the_check_finds_what_is_wrong() -> None:
    assert faults("edit add TEXT --edit-sets x") == ["--edit-sets"]
    assert faults("edit shout TEXT") == ["no command edit shout TEXT"]
    assert faults("eval --data invented --edit 5") == ["--edit"]
    assert faults("serve DIR -- --max-model-len 9") == []


def test_the_readme_stays_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 120
