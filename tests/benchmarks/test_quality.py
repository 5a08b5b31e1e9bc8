"""The sweep: cells, report, pictures, and going on after a stop."""

import json

import pytest

from benchmarks import quality
from incomes_plugin.evaluation import harness
from tests.tiny_model import write_tiny_model

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:matplotlib")  # pyparsing names that matplotlib uses


def test_a_sweep_is_written_resumed_and_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "UNRELATED_PROMPTS", ("Hello",))
    model = write_tiny_model(tmp_path / "model")
    options = ["--model", str(model), "--data", "invented", "--limit", "1", "--backend", "hf", "--out", str(tmp_path)]
    assert quality.main([*options, "--edits", "1", "--methods", "none", "paper"]) == 0
    first = json.loads((tmp_path / "quality.json").read_text())
    assert quality.main([*options, "--edits", "1", "3", "--methods", "none", "--resume"]) == 0
    cells = json.loads((tmp_path / "quality.json").read_text())["cells"]
    assert cells[:2] == first["cells"]
    assert [(c["_run"]["method"], c["_run"]["edits"]) for c in cells] == [("none", 1), ("paper", 1), ("none", 3)]
    assert "paper's recipe" in cells[1]["_failed"]
    page = (tmp_path / "quality.md").read_text()
    assert "## invented: unrelated_unchanged" in page
    assert "| none | 100.0 [20.6–100.0] | 100.0 [20.6–100.0] |" in page
    assert "| paper | – | – |" in page
    assert (tmp_path / "quality-invented.png").read_bytes().startswith(b"\x89PNG")
