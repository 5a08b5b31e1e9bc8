"""The arithmetic behind the figures, and the committed report against its data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.report import markdown
from benchmarks.stats import percentile, ratios, summary
from benchmarks.throughput import STOCK, Unfaithful, Variant, check, rotate

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"


def test_percentile_is_the_nearest_rank() -> None:
    values = [float(v) for v in range(100, 0, -1)]
    assert percentile(values, 50) == 50
    assert percentile(values, 95) == 95
    assert percentile([7.0], 95) == 7


def test_ratios_compare_within_a_round() -> None:
    # The machine halves its speed in the second round: the ratio does not move.
    assert summary(ratios([90.0, 45.0], [100.0, 50.0])) == {"median": 0.9, "min": 0.9, "max": 0.9, "runs": 2}


def test_rounds_begin_with_another_variant_each() -> None:
    columns = [STOCK, Variant(0), Variant(100)]
    first = [rotate(columns, turn)[0] for turn in range(3)]
    assert first == columns
    assert sorted(v.name for v in rotate(columns, 2)) == sorted(v.name for v in columns)


def test_edits_that_change_nothing_are_not_measured() -> None:
    check([Variant(0), Variant(100)], {"edits_0_gists_1": False, "edits_100_gists_1": True})
    with pytest.raises(Unfaithful, match="edits_100_gists_1: its tokens equal"):
        check([Variant(100)], {"edits_100_gists_1": False})
    with pytest.raises(Unfaithful, match="edits_0_gists_1: its tokens differ"):
        check([Variant(0)], {"edits_0_gists_1": True})


@pytest.mark.parametrize("path", sorted(RESULTS.glob("serving*.json")), ids=lambda path: path.name)
def test_report_shows_the_committed_figures(path: Path) -> None:
    assert path.with_suffix(".md").read_text() == markdown(json.loads(path.read_text()))
