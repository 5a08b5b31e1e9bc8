"""The benchmark of verbatim texts runs on a tiny model, keeps its sections, and says what it measured."""

import json

import pytest

from benchmarks import verbatim
from incomes_plugin.lab.verbatim.frozen import FrozenModel
from tests.tiny_model import write_tiny_model

CLAUSES = ["red 15:40", "pump 30", "x=3;y"]
SECTIONS = ["together", "without_margin", "random", "alone", "published"]


@pytest.fixture
def arguments(tmp_path, monkeypatch):
    monkeypatch.setattr(verbatim, "verbatim_texts", lambda: CLAUSES)
    folder = write_tiny_model(tmp_path / "tiny")
    model = FrozenModel(folder)
    document = {
        "origin": {"model": model.origin.model},
        "calibration": {"nats_per_vector": 12.0, "efficiency": {"1": 1.0}},
    }
    (tmp_path / "capacity.json").write_text(json.dumps(document))
    found = ["--model", folder, "--capacity", tmp_path / "capacity.json", "--few", "3", "--out", tmp_path / "out"]
    return list(map(str, found))


def test_sections(arguments, tmp_path):
    assert verbatim.main([*arguments, "--only", *SECTIONS]) == 0
    result = json.loads((tmp_path / "out" / "verbatim-texts.json").read_text())
    for name in SECTIONS:
        held = [text for text in result[name]["texts"] if text["accepted"]]
        assert held, name
        assert result[name]["survivors"]["as stored"] == f"{len(held)} of {len(held)}"
    assert all(text["margin"] >= 1 for text in result["together"]["texts"] if text["accepted"])
    together, before = ([text["steps"] for text in result[name]["texts"]] for name in ("together", "without_margin"))
    assert sum(before) < sum(together)
    assert result["together"]["changed"]
    page = (tmp_path / "out" / "verbatim-texts.md").read_text()
    assert all(f"| {name.replace('_', ' ')} |" in page for name in SECTIONS)


def test_sections_that_are_there_are_kept(arguments, tmp_path):
    (tmp_path / "out").mkdir()
    assert verbatim.main([*arguments, "--only", "random"]) == 0
    before = (tmp_path / "out" / "verbatim-texts.json").read_text()
    assert verbatim.main([*arguments, "--only", "random"]) == 0
    assert (tmp_path / "out" / "verbatim-texts.json").read_text() == before
