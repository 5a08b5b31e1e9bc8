"""`incomes transplant` from the command line."""

import json
import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from incomes_plugin.errors import InvalidValue
from incomes_plugin.transplant.cli import app, parse_map
from incomes_plugin.transplant.methods import METHODS
from tests.incomes_plugin.transplant.conftest import byte_level
from tests.incomes_plugin.transplant.models import PIECES, write_base, write_model

DOCS = Path(__file__).resolve().parents[3] / "docs"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("cli")
    tokenizer = byte_level(PIECES, eos_token="<|end|>", unk_token="<|unk|>")
    return write_base(root / "base", tied=False), write_model(root / "donor", tokenizer, tied=False)


def run(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


def test_there_and_back(folders, tmp_path):
    base, donor = folders
    done = run("--base", base, "--donor", donor, "--out", tmp_path / "new", "--k", 4, "--map", "<|end|>=<bos>")
    assert done.exit_code == 0, done.output
    assert "<|end|> = <bos>" in done.output
    assert json.loads((tmp_path / "new" / "transplant" / "manifest.json").read_text())["k"] == 4
    assert run("--restore", tmp_path / "new", "--out", tmp_path / "back").exit_code == 0
    assert (tmp_path / "back" / "model.safetensors").read_bytes() == (base / "model.safetensors").read_bytes()


@pytest.mark.parametrize("missing", ["base", "donor", "out"])
def test_missing_folders(folders, tmp_path, missing):
    options = {"base": folders[0], "donor": folders[1], "out": tmp_path / "new"}
    done = run(*(part for name, value in options.items() if name != missing for part in (f"--{name}", value)))
    assert isinstance(done.exception, InvalidValue)
    assert f"--{missing} is missing" in str(done.exception)


def test_unknown_method(folders, tmp_path):
    done = run("--base", folders[0], "--donor", folders[1], "--out", tmp_path / "new", "--method", "magic")
    assert "no method 'magic'" in str(done.exception)


def test_maps():
    assert parse_map(["<a>=<b>", "<c>=<d>"]) == {"<a>": "<b>", "<c>": "<d>"}
    for wrong in ("<a>", "=<b>", "<a>=", "<a>=<b>=<c>"):
        with pytest.raises(InvalidValue, match="no pair"):
            parse_map([wrong])


@pytest.mark.parametrize("page", ["transplant.md", "cli.md"])
def test_options_and_methods_are_documented(page):
    text = (DOCS / page).read_text()
    named = [option for parameter in typer.main.get_command(app).params for option in parameter.opts]
    assert len(named) > 6
    assert [option for option in named if not re.search(rf"{re.escape(option)}(?![\w-])", text)] == []
    assert page == "cli.md" or [method for method in METHODS if f"`{method}`" not in text] == []
