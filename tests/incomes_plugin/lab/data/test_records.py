"""Lines of a data set: what passes, and what a refused one is told."""

import json
import lzma
from pathlib import Path

import pytest

from incomes_plugin.errors import InvalidValue
from incomes_plugin.lab.data.records import read_records
from incomes_plugin.lab.evaluation.datasets import data_dir_of, fillers, load_dataset

GOOD = {
    "id": "a-1",
    "dataset": "a",
    "edits": [{"statement": "The tower is blue.", "subject": "The tower", "relation": None, "target_new": "blue"}],
    "queries": [{"type": "rewrite", "prompt": "The tower is", "answers": ["blue"], "old_answers": ["red"]}],
}


def write(path: Path, *lines: object) -> Path:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return path


def without(field: str) -> dict:
    return {name: value for name, value in GOOD.items() if name != field}


def test_plain_and_packed_files_are_the_same(tmp_path):
    plain = write(tmp_path / "a.jsonl", GOOD, "", GOOD)
    packed = tmp_path / "a.jsonl.xz"
    packed.write_bytes(lzma.compress(plain.read_bytes()))
    assert read_records(plain) == read_records(packed)
    assert [edit.statement for edit in read_records(plain)[0].edits] == ["The tower is blue."]


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (without("edits"), "edits"),
        (GOOD | {"edits": []}, "edits"),
        (GOOD | {"edits": [{"statement": "  "}]}, "edits.0.statement"),
        (GOOD | {"queries": [{"type": "riddle", "prompt": "?", "answers": []}]}, "queries.0.type"),
        (GOOD | {"queries": [{"type": "rewrite", "prompt": "?", "answers": "blue"}]}, "queries.0.answers"),
        (GOOD | {"queries": [{"type": "rewrite", "prompt": "?", "answers": []}]}, "queries.0"),
        ("[1, 2]", "record"),
        ("{", "record"),
    ],
)
def test_a_bad_line_is_named_with_file_line_field_and_remedy(tmp_path, bad, field):
    path = write(tmp_path / "bad.jsonl", GOOD, bad)
    with pytest.raises(InvalidValue, match=r"bad\.jsonl, line 2.*(docs/evaluation\.md|one JSON object)") as caught:
        read_records(path)
    assert caught.value.param == field


def test_a_damaged_archive_is_named(tmp_path):
    path = tmp_path / "a.jsonl.xz"
    path.write_bytes(b"not an archive")
    with pytest.raises(InvalidValue, match="cannot be read"):
        read_records(path)


def test_a_name_is_looked_up_in_the_folder_and_the_variable(tmp_path, monkeypatch):
    (tmp_path / "edits").mkdir()
    write(tmp_path / "edits" / "towers.test.jsonl", GOOD)
    monkeypatch.setenv("INCOMES_DATA", str(tmp_path))
    assert data_dir_of(None) == data_dir_of(tmp_path) == tmp_path
    found = load_dataset("towers", split="test", data_dir=tmp_path, num_edits=1, asked=1, seed=0)
    assert (found.name, len(found.records), found.built_in) == ("towers", 1, False)
    with pytest.raises(InvalidValue, match=r"towers\.dev\.jsonl\.xz.*--data-dir"):
        load_dataset("towers", split="dev", data_dir=tmp_path, num_edits=1, asked=1, seed=0)


def test_other_sets_and_then_invented_facts_fill_a_pool(tmp_path):
    (tmp_path / "edits").mkdir()
    overwritten = GOOD | {"flags": ["sequential_overwrite"]}
    write(tmp_path / "edits" / "zsre.dev.jsonl", GOOD)
    packed = "\n".join(json.dumps(line) for line in (GOOD | {"id": "b-1"}, overwritten))
    (tmp_path / "edits" / "counterfact.dev.jsonl.xz").write_bytes(lzma.compress(packed.encode()))
    found = [record.id for record in fillers("zsre", split="dev", data_dir=tmp_path, num_edits=2, seed=0)]
    assert found == ["b-1", "invented-0", "invented-1"]
