"""`incomes transplant` from the command line."""

import json
import re
from pathlib import Path

import pytest
import typer
from transformers import AutoTokenizer
from typer.testing import CliRunner

from incomes_plugin.errors import AdapterMissing, InvalidValue
from incomes_plugin.lab.transplant.cli import app, parse_k, parse_map
from incomes_plugin.lab.transplant.digits import digit_scheme
from incomes_plugin.lab.transplant.methods import METHODS
from incomes_plugin.model.resolve import resolve
from tests.incomes_plugin.lab.transplant.conftest import byte_level, cutting_numbers
from tests.incomes_plugin.lab.transplant.models import PIECES, write_base, write_model

DOCS = Path(__file__).resolve().parents[4] / "docs"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("cli")
    tokenizer = byte_level(PIECES, eos_token="<|end|>", unk_token="<|unk|>")
    return write_base(root / "base", tied=False), write_model(root / "donor", tokenizer, tied=False)


def run(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


def test_a_model_comes_out_with_its_adapter(folders, tmp_path):
    base, donor = folders
    done = run(
        base, donor, "--adapter", base / "adapter", "--out", tmp_path / "new", "--k", 4, "--map", "<|end|>=<bos>"
    )
    assert done.exit_code == 0, done.output
    assert "<|end|> = <bos>" in done.output
    assert "the edit adapter came along" in done.output
    served = resolve(str(tmp_path / "new" / "adapter"), None)
    assert served.base_dir == tmp_path / "new"
    assert json.loads((tmp_path / "new" / "transplant" / "report.json").read_text())["result"]["k"] == 4


def test_edits_are_asked_before_and_after(folders, tmp_path):
    base, donor = folders
    lines = [{"text": f"the cat {i}", "questions": [{"prompt": f"cat {i}?", "answer": "zzzz"}]} for i in range(2)]
    (tmp_path / "edits").write_text("\n".join(map(json.dumps, lines)))
    options = ("--method", "subword", "--adapter", base / "adapter", "--edits", tmp_path / "edits")
    done = run(base, donor, "--out", tmp_path / "new", *options)
    assert done.exit_code == 0, done.output
    assert (
        "edits answered: 0 of 2 (the right one picked: 2) before, 0 of 2 (the right one picked: 2) after" in done.output
    )


def test_edits_need_an_adapter(folders, tmp_path):
    (tmp_path / "edits").write_text("")
    done = run(*folders, "--out", tmp_path / "new", "--edits", tmp_path / "edits")
    assert isinstance(done.exception, AdapterMissing)
    assert run(*folders, "--out", tmp_path / "new").exit_code == 0
    assert not (tmp_path / "new" / "adapter").exists()


def test_what_is_missing(folders, tmp_path):
    assert "--out is missing" in str(run(*folders).exception)
    assert "no folder" in str(run(folders[0], tmp_path / "nothing", "--out", tmp_path / "new").exception)
    assert "no method 'magic'" in str(run(*folders, "--out", tmp_path / "new", "--method", "magic").exception)


def test_maps():
    assert parse_map(["<a>=<b>", "<c>=<d>"]) == {"<a>": "<b>", "<c>": "<d>"}
    for wrong in ("<a>", "=<b>", "<a>=", "<a>=<b>=<c>"):
        with pytest.raises(InvalidValue, match="no pair"):
            parse_map([wrong])


def test_values_of_k():
    assert [parse_k(k) for k in (None, "auto", "12")] == [(None, False), (None, True), (12, False)]
    for wrong in ("0", "-1", "many", "1.5"):
        with pytest.raises(InvalidValue, match="a number from 1, or auto"):
            parse_k(wrong)


def test_k_is_chosen_by_a_text_and_methods_are_compared(folders, tmp_path):
    (tmp_path / "text").write_text("the cat\nan answer")
    options = (*folders, "--out", tmp_path / "new", "--k", "auto")
    assert "--text FILE" in str(run(*options).exception)
    done = run(*options, "--text", tmp_path / "text", "--compare")
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "new" / "transplant" / "report.json").read_text())["result"]
    scores = found["bits_per_byte"]["scores"]
    chosen = min((s for s in scores if s["recipe"]["method"] == "omp"), key=lambda s: s["bits_per_byte"])
    assert found["k"] == chosen["recipe"]["k"]
    assert {score["recipe"]["method"] for score in scores} == set(METHODS)
    after = chosen["bits_per_byte"]
    assert f"bits per byte of the text: {found['bits_per_byte']['before']:.3f} before, {after:.3f} after" in done.output


@pytest.mark.parametrize("page", ["transplant.md", "cli.md"])
def test_options_and_methods_are_documented(page):
    text = (DOCS / page).read_text()
    named = [option for parameter in typer.main.get_command(app).params for option in parameter.opts]
    assert len(named) > 6
    assert [option for option in named if not re.search(rf"{re.escape(option)}(?![\w-])", text)] == []
    assert page == "cli.md" or [method for method in METHODS if f"`{method}`" not in text] == []


def test_assessment_writes_nothing_but_its_measurements(folders, tmp_path):
    base, donor = folders
    (tmp_path / "text").write_text("the cat")
    options = (base, donor, "--assess", "--text", tmp_path / "text", "--json", tmp_path / "a.json")
    done = run(*options, "--out", tmp_path / "new")
    found = json.loads((tmp_path / "a.json").read_text())["assessment"]
    assert found["verdict"] == "no"  # random rows have no geometry in common
    assert done.exit_code == 1
    assert "verdict: no" in done.output
    assert not (tmp_path / "new").exists()


def test_another_cutting_of_numbers_is_refused_unless_allowed(folders, tmp_path):
    donor = write_model(tmp_path / "donor", cutting_numbers(r"\p{N}{1,2}"), tied=True)
    options = (folders[0], donor, "--method", "ridge", "--out")
    assert "groups of 2" in str(run(*options, tmp_path / "new").exception)
    assert not (tmp_path / "new").exists()
    assert run(*options, tmp_path / "new", "--allow-number-mismatch").exit_code == 0
    kept = tmp_path / "kept"
    assert run(*options, kept, "--cut", "numbers").exit_code == 0
    assert digit_scheme(AutoTokenizer.from_pretrained(kept)) == "single"
    record = tmp_path / "new" / "transplant"
    assert json.loads((record / "report.json").read_text())["result"]["method"] == "ridge"
    page = (record / "report.md").read_text()
    assert "numbers: the base cuts them as single, the new tokenizer as groups of 2 from the left" in page
    assert "| embedding | estimated |" in page
