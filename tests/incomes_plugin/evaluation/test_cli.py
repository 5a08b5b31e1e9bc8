"""`incomes eval` from options to files, and the plot of several results."""

import json

import pytest
from typer.testing import CliRunner

from incomes_plugin.errors import InvalidValue
from incomes_plugin.evaluation import harness
from incomes_plugin.evaluation.cli import app, plot_app
from incomes_plugin.evaluation.report import read_document

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:matplotlib")  # pyparsing names that matplotlib uses


@pytest.fixture
def written(tiny_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "UNRELATED_PROMPTS", ("Hello",))
    paths = []
    for edits in (1, 4):
        paths.append(tmp_path / f"{edits}.json")
        options = ["--data", "invented", "--edits", str(edits), "--limit", "1", "--max-answer-tokens", "2"]
        options += ["--model", str(tiny_dir), "--backend", "hf", "--failures", "2", "--json", str(paths[-1])]
        done = CliRunner().invoke(app, [*options, "--markdown", str(tmp_path / "page.md")], catch_exceptions=False)
        assert done.exit_code == 0
        assert f"ours on invented: {edits} edits active" in done.stdout
    return paths


def test_results_are_written_and_plotted(written, tmp_path):
    document = json.loads(written[1].read_text())
    assert set(document["reliability"]) == {"value", "ci_low", "ci_high", "n"}
    assert document["_run"]["edits_active"] == 4
    assert {"fingerprint", "seed", "method", "backend", "commit", "machine", "command", "date"} <= set(document["_run"])
    assert len(document["_failures"]) == 2
    page = (tmp_path / "page.md").read_text()
    assert all(f"| {name} |" in page for name in ("reliability", "unanswerable_refused", "unrelated_unchanged"))
    png = tmp_path / "curve.png"
    done = CliRunner().invoke(plot_app, [*map(str, written), "--png", str(png)], catch_exceptions=False)
    assert done.exit_code == 0
    assert png.read_bytes().startswith(b"\x89PNG")


def test_a_plot_needs_results_with_the_metric(written, tmp_path):
    with pytest.raises(InvalidValue, match="no result has the metric"):
        CliRunner().invoke(
            plot_app, [str(written[0]), "--png", "x.png", "--metric", "multihop"], catch_exceptions=False
        )
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(InvalidValue, match=r"other\.json is no result"):
        read_document(tmp_path / "other.json")


def test_an_unknown_method_lists_the_known_ones():
    with pytest.raises(InvalidValue, match="rag-bm25-1"):
        CliRunner().invoke(app, ["--data", "invented", "--method", "magic"], catch_exceptions=False)
