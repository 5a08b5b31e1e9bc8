"""Groups of edits around one edit each: from published sets, as far as there are any, and invented."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from incomes_plugin.lab.adapt.conflict_groups import SETS, groups


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
    monkeypatch.setattr("incomes_plugin.lab.adapt.conflict_groups.SUFFIX", ".jsonl")
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


def test_without_published_sets_all_groups_are_invented(tmp_path: Path) -> None:
    alone = groups("train", None, 4)
    assert {group.source for group in alone} == {"invented"}
    assert len(alone) == 12
    assert groups("train", tmp_path, 4) == alone, "a folder that lacks the sets"
