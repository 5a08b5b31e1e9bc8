"""The benchmark of conflicts: its pairs, the fit of the judge's net, and the committed figures."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch

from benchmarks.conflict_sets import SETS, groups
from benchmarks.judge_fit import Pair, fitted
from benchmarks.later_wins import left
from incomes_plugin.lab.evaluation.records import Record
from incomes_plugin.selection.conflicts import Judge
from incomes_plugin.selection.edit_pairs import NUMBERS

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "conflicts.json"


def record(number: int, **edit: str) -> dict[str, object]:
    said = {"subject": f"Ann {number}", "target_new": "Rome", "target_old": "Oslo", "relation": "P1"} | edit
    edits = [{"statement": f"{said['subject']} lives in {said['target_new']}.", **said}]
    queries = [
        {"type": "locality", "subtype": "neighbour", "prompt": "Bob lives in", "answers": ["Bern"]},
        {"type": "locality", "subtype": "neighbour", "prompt": f"{said['subject']} lives in", "answers": ["Oslo"]},
        {"type": "rephrase", "prompt": f"The home of {said['subject']} is", "answers": ["Rome"]},
    ]
    return {"id": str(number), "edits": edits, "queries": queries}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "edits").mkdir()
    for name in SETS["train"]:
        lines = [record(number) for number in (1, 1, 2)] if name == "pararel_synth" else []
        path = tmp_path / "edits" / f"{name}.train.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def test_groups_are_one_edit_a_subject_with_what_surrounds_it(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.conflict_sets.SUFFIX", ".jsonl")
    found = groups("train", data, 4)
    assert found == groups("train", data, 4)
    published = {group.edit: group for group in found if group.source == "pararel_synth"}
    assert published.keys() == {"Ann 1 lives in Rome.", "Ann 2 lives in Rome."}
    one = published["Ann 1 lives in Rome."]
    assert one.contradictions == ("Ann 1 lives in Oslo.",)
    assert (one.reworded, one.duplicates) == (("The home of Ann 1 is Oslo.",), ("The home of Ann 1 is Rome.",))
    assert one.neighbours == ("Bob lives in Bern.",), "a neighbour that asks the very question is none"
    invented = [group for group in found if group.source == "invented"]
    assert len(invented) == 12
    for group in invented:
        assert len({group.edit, *group.contradictions, *group.neighbours}) == 4


def test_the_net_is_fitted_and_written_as_the_judge_reads_it() -> None:
    rng = random.Random(0)

    def pair(new: int) -> Pair:
        meant = new % 3 == 0
        middle = 1.0 if meant else -1.0
        numbers = tuple(rng.gauss(middle, 0.4) for _ in range(NUMBERS))
        kind = ("duplicates" if new % 2 else "contradictions") if meant else "neighbours"
        return Pair(new, new, kind, "made", numbers, meant)

    pairs = [pair(new) for new in range(300)]
    net, report = fitted(pairs, 0.02)
    assert report["found"]["contradictions"][0] > 0.95
    assert report["found"]["neighbours"][0] <= 0.02
    read = Judge(**{name: torch.tensor(value) for name, value in json.loads(net).items()})
    logits = read.logits(torch.tensor([each.numbers for each in pairs]))[:, 0]
    right = [(logit > 0) == each.meant for logit, each in zip(logits.tolist(), pairs, strict=True)]
    assert sum(right) / len(right) > 0.97


def test_what_supersede_leaves_is_the_later_edit_alone() -> None:
    made = record(1)
    made["edits"] = [*made["edits"], {"statement": "Ann 1 lives in Bern.", "target_new": "Bern"}]  # type: ignore[misc]
    both = Record.model_validate(made)
    assert left(both, was_found=False) == both
    assert [edit.target_new for edit in left(both, was_found=True).edits] == ["Bern"]


@pytest.mark.skipif(not RESULTS.exists(), reason="no figures are committed")
def test_the_committed_figures_hold_what_is_promised() -> None:
    found = json.loads(RESULTS.read_text())
    assert {"machine", "commit", "command", "date"} <= found.keys()
    assert found["found"]["recall"]["contradictions"]["share"] >= 0.95
    assert found["found"]["false_alarms"]["all"]["share"] <= 0.02
