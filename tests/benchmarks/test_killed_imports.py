"""What the measurement of killed imports promises: its file of lines, and that a missing or doubled line shows."""

import json
from types import SimpleNamespace

import pytest

from benchmarks.killed_imports import check, write_facts


def client_of(lines, total):
    results = [json.dumps({"custom_id": f"c{i}", "response": {"body": {"id": f"edit_{edit}"}}}) for i, edit in lines]
    return SimpleNamespace(
        files=SimpleNamespace(content=lambda _: iter(results)),
        edit_sets=SimpleNamespace(
            digest=lambda _: SimpleNamespace(num_edits=len(results), content_sha256=f"{total:064x}")
        ),
    )


def batch_of(completed):
    counts = SimpleNamespace(completed=completed, failed=0)
    return SimpleNamespace(output_file_id="file-1", request_counts=counts)


def test_a_right_import_passes_and_each_fault_shows(tmp_path):
    file = tmp_path / "facts.jsonl"
    total = write_facts(file, 50)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert len({line["custom_id"] for line in lines}) == len({line["text"] for line in lines}) == 50
    right = [(i, i) for i in range(50)]
    assert check(client_of(right, total), batch_of(50), 50, total)["different_edits"] == 50
    doubled, missing = [*right[:49], (49, 48)], right[:49]
    for wrong, other_total in ((doubled, total), (missing, total), (right, total + 1)):
        with pytest.raises(RuntimeError, match="not every line once"):
            check(client_of(wrong, other_total), batch_of(50), 50, total)
