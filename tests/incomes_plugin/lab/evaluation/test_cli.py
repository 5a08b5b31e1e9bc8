"""`incomes eval` from options to files, and the plot of a result."""

import json

import pytest
from typer.testing import CliRunner

from incomes_plugin.errors import InvalidValue
from incomes_plugin.lab.evaluation import derived
from incomes_plugin.lab.evaluation.cli import app, plot_app
from incomes_plugin.lab.evaluation.report import read_cells

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:matplotlib")  # pyparsing names that matplotlib uses


@pytest.fixture
def written(served, tmp_path, few_prompts, monkeypatch):
    monkeypatch.setattr(derived, "LONG_TOKENS", (50,))
    path = tmp_path / "out" / "result.json"
    options = ["--data", "invented", "--edits", "1,4", "--limit", "2", "--left-out", "1", "--max-answer-tokens", "2"]
    options += ["--model", str(served.base_dir), "--adapter", str(served.adapter_dir), "--backend", "hf"]
    options += ["--data-dir", str(tmp_path), "--failures", "2", "--methods", "ours,none", "--out", str(path)]
    done = CliRunner().invoke(app, options, catch_exceptions=False)
    assert done.exit_code == 0
    assert "invented: 4 edits active; seed 0" in done.stdout
    return path


def test_results_are_written_and_plotted(written, tmp_path):
    document = json.loads(written.read_text())
    assert {"fingerprint", "base", "adapter", "backend", "commit", "machine", "command", "date"} <= set(document)
    cells = read_cells(written)
    assert [(c.facts.method, c.facts.edits_active) for c in cells] == [
        ("ours", 1),
        ("none", 1),
        ("ours", 4),
        ("none", 4),
    ]
    assert {"reliability", "reliability_strict", "generalization", "multi_turn", "unrelated_unchanged"} <= set(
        cells[2].metrics
    )
    assert cells[3].metrics["near_miss_unchanged"].value == 1.0
    assert len(cells[2].failures) == 2
    page = written.with_suffix(".md").read_text()
    assert all(f"| {name} |" in page for name in ("reliability", "near_miss_left_out_unchanged", "bytes per edit"))
    assert "|  | ours | none |" in page
    png = tmp_path / "curve.png"
    done = CliRunner().invoke(plot_app, [str(written), "--png", str(png)], catch_exceptions=False)
    assert done.exit_code == 0
    assert png.read_bytes().startswith(b"\x89PNG")


def test_several_draws_are_one_table_and_the_oracle_is_asked_first(served, tmp_path):
    path = tmp_path / "draws.json"
    options = ["--data", "invented", "--edits", "2", "--limit", "2", "--left-out", "0", "--max-answer-tokens", "1"]
    options += ["--model", str(served.base_dir), "--adapter", str(served.adapter_dir), "--backend", "hf"]
    options += ["--data-dir", str(tmp_path), "--methods", "ours,oracle", "--ask", "rewrite", "--seed", "0,1"]
    done = CliRunner().invoke(app, [*options, "--out", str(path)], catch_exceptions=False)
    assert done.exit_code == 0
    cells = read_cells(path)
    assert [(c.facts.method, c.facts.seed) for c in cells] == [("oracle", 0), ("ours", 0), ("oracle", 1), ("ours", 1)]
    assert done.stdout.count("invented: 2 edits active; seed 0, 1") == 1
    assert "[0–49; 4]" in done.stdout  # two questions of each draw, none right on this base


def test_a_plot_needs_results_with_the_metric(written, tmp_path):
    with pytest.raises(InvalidValue, match="no result has the metric"):
        CliRunner().invoke(plot_app, [str(written), "--png", "x.png", "--metric", "multihop"], catch_exceptions=False)
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(InvalidValue, match=r"other\.json is no result"):
        read_cells(tmp_path / "other.json")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--methods", "magic"], "bm25-1"),
        (["--ask", "riddle"], "near_miss"),
        (["--edits", "many"], "numbers from 1 on"),
        (["--seed", "x"], "--seed: .* numbers from 0 on"),
        (["--data", "nowhere"], "no data set 'nowhere'"),
    ],
)
def test_a_wrong_option_is_told_what_there_is(wrong, message):
    with pytest.raises(InvalidValue, match=message):
        CliRunner().invoke(app, ["--data", "invented", *wrong], catch_exceptions=False)
