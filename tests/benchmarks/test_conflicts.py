"""The benchmarks of conflicts: what `supersede` leaves, and the committed figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.later_wins import left
from incomes_plugin.lab.data.records import Record

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "conflicts.json"


def test_what_supersede_leaves_is_the_later_edit_alone() -> None:
    edits = [{"statement": f"Ann lives in {place}.", "target_new": place} for place in ("Rome", "Bern")]
    asked = {"type": "rewrite", "prompt": "Ann lives in", "answers": ["Bern"], "edit": 1}
    both = Record.model_validate({"id": "1", "edits": edits, "queries": [asked]})
    assert left(both, was_found=False) == both
    assert [edit.target_new for edit in left(both, was_found=True).edits] == ["Bern"]


@pytest.mark.skipif(not RESULTS.exists(), reason="no figures are committed")
def test_the_committed_figures_hold_what_is_promised() -> None:
    found = json.loads(RESULTS.read_text())
    assert {"machine", "commit", "command", "date"} <= found.keys()
    assert found["found"]["recall"]["contradictions"]["share"] >= 0.95
    assert found["found"]["false_alarms"]["all"]["share"] <= 0.02
