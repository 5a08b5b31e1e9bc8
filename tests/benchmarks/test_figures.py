"""The arithmetic behind the figures, and the committed report against its data."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from benchmarks.adapters import ALWAYS, random_gists, with_threshold
from benchmarks.questions import asking, facts
from benchmarks.report import markdown
from benchmarks.stats import percentile, ratios, summary
from benchmarks.throughput import STOCK, Unfaithful, Variant, check, rotate
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.model.base import resolve_model
from tests.tiny_model import write_tiny_model

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


def test_a_prompt_asks_for_a_fact_and_is_as_long_as_told() -> None:
    tokenizer = AutoTokenizer.from_pretrained(resolve_model(None))
    first, second = (asking(tokenizer, facts(20)[3], tokens, 5) for tokens in (64, 128))
    assert (60 < len(first) <= 64, 120 < len(second) <= 128) == (True, True)
    for ids in (first, second):
        assert f"{facts(20)[3].question}<|im_end|>" in tokenizer.decode(ids)
    assert facts(20)[:5] == facts(5), "a larger set begins with the smaller one"


def test_a_variant_that_does_not_do_what_it_says_is_not_measured() -> None:
    variants = [Variant(0), Variant(100, "most"), Variant(100)]
    check(variants, {"edits_0": False, "edits_100_read": True, "edits_100": False})
    with pytest.raises(Unfaithful, match="edits_100_read: its tokens equal"):
        check(variants[1:2], {"edits_100_read": False})
    for silent in (variants[0], variants[2]):
        with pytest.raises(Unfaithful, match=f"{silent.name}: its tokens differ"):
            check([silent], {silent.name: True})


def test_the_threshold_and_rivalry_are_all_that_changes(tmp_path: Path) -> None:
    base_dir = write_tiny_model(tmp_path / "model")
    before, after = (
        EditAdapter.load(folder)
        for folder in (
            base_dir / "adapter",
            with_threshold(base_dir / "adapter", tmp_path / "changed", ALWAYS),
        )
    )
    assert after.rules == replace(before.rules, threshold=ALWAYS, rivalry=0.0)
    assert after.base == before.base
    assert after.reader.state_dict().keys() == before.reader.state_dict().keys()


def test_random_gists_have_the_shape_of_real_ones(tmp_path: Path) -> None:
    shape = EditAdapter.load(write_tiny_model(tmp_path) / "adapter").shape
    first, second = random_gists(shape, 2, 6, "a")
    assert (first.num_tokens, first.num_bytes) == (6, 6 * shape.room_per_token)
    assert first.edit_id != second.edit_id
    assert not first.latents.data.equal(second.latents.data)


def committed() -> list[Path]:
    """Reports of the present mechanism: those of the former one name no base."""
    return [path for path in sorted(RESULTS.glob("serving*.json")) if "base" in json.loads(path.read_text())]


@pytest.mark.parametrize("path", committed(), ids=lambda path: path.name)
def test_report_shows_the_committed_figures(path: Path) -> None:
    assert path.with_suffix(".md").read_text() == markdown(json.loads(path.read_text()))
