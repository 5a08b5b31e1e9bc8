"""The fact gate's benchmark: going on after a stop, its arithmetic, its prompts, and the committed report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import fact_gate
from benchmarks.everyday import FORMS, everyday
from benchmarks.fact_gate_found import fires, rotated
from benchmarks.fact_gate_report import markdown
from incomes_plugin.errors import InvalidValue
from incomes_plugin.evaluation.unrelated import UNRELATED_PROMPTS

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"


def test_the_report_is_the_data() -> None:
    result = json.loads((RESULTS / "fact-gate.json").read_text())
    assert (RESULTS / "fact-gate.md").read_text() == markdown(result)
    assert set(result["sizes"]) == {"1000", "10000"}
    assert all(set(parts) == set(fact_gate.PARTS) for parts in result["sizes"].values())


def test_a_run_goes_on_where_it_stopped_and_only_with_the_same_sample(tmp_path: Path) -> None:
    """All parts are there, so nothing is measured; with another sample they are not the same parts."""
    document = json.loads((RESULTS / "fact-gate.json").read_text())
    (tmp_path / "fact-gate.json").write_text(json.dumps(document))
    asked = str(document["setting"]["asked_edits"])
    options = ["--resume", "--out", str(tmp_path), "--ask"]
    assert fact_gate.main([*options, asked]) == 0
    assert json.loads((tmp_path / "fact-gate.json").read_text())["sizes"] == document["sizes"]
    with pytest.raises(InvalidValue, match="was measured with"):
        fact_gate.main([*options, "7"])


def test_one_token_that_reads_is_a_prompt_that_reads() -> None:
    found = fires(torch.tensor([False, True, False, False, False]), torch.tensor([0, 0, 0, 1, 1]))
    assert (found["prompts"]["value"], found["tokens"]["value"]) == (0.5, 0.2)


def test_every_round_begins_with_another_side() -> None:
    assert [rotated("abc", turn)[0] for turn in range(4)] == ["a", "b", "c", "a"]


def test_everyday_prompts_are_many_repeat_and_are_not_the_fixed_ones() -> None:
    prompts = everyday(2000, 1)
    assert len(set(prompts)) == 2000
    assert prompts == everyday(2000, 1) != everyday(2000, 2)
    assert not {prompt.casefold() for prompt in prompts} & {prompt.casefold() for prompt in UNRELATED_PROMPTS}
    fixed = {form for forms in FORMS for form in forms if "{" not in form}
    assert not {form.casefold() for form in fixed} & {prompt.casefold() for prompt in UNRELATED_PROMPTS}
