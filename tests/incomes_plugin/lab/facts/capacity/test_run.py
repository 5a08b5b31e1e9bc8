"""Experiments: all run, go on where they were stopped, and write files that say where they come from."""

import json
from pathlib import Path

import pytest

from incomes_plugin.errors import InvalidValue
from incomes_plugin.lab.facts.capacity.parts import PARTS
from incomes_plugin.lab.facts.capacity.run import run
from incomes_plugin.lab.facts.capacity.search import largest

WHERE = {"machine": {"cpu": "a test"}, "commit": "0" * 12, "command": "pytest", "date": "2026-01-01"}
DOCS = Path(__file__).resolve().parents[4] / "docs"


def measured(name, out, *, resume=False):
    return run(PARTS[name], out, lambda: dict(WHERE), quick=True, resume=resume, progress=lambda *_: None)


@pytest.mark.parametrize("name", PARTS)
def test_every_experiment_runs_and_writes(name, tmp_path):
    cells = measured(name, tmp_path)
    document = json.loads((tmp_path / f"facts-{name}.json").read_text())
    assert WHERE.items() <= document.items()
    assert len(document["cells"]) == len(cells) == len(PARTS[name].jobs(quick=True))
    assert len((tmp_path / f"facts-{name}.csv").read_text().splitlines()) == len(cells) + 1
    page = (tmp_path / f"facts-{name}.md").read_text()
    assert all(check.what in page for check in PARTS[name].checks(cells))
    assert (tmp_path / f"facts-{name}.png").stat().st_size > 5000


def test_a_stopped_run_goes_on(tmp_path, monkeypatch):
    path = tmp_path / "facts-linear.json"
    first = measured("linear", tmp_path)
    document = json.loads(path.read_text())
    document["cells"] = document["cells"][:-1]
    path.write_text(json.dumps(document))
    asked = []
    part = PARTS["linear"]
    original = type(part).measure
    monkeypatch.setattr(type(part), "measure", lambda self, job: (asked.append(job), original(self, job))[1])
    second = measured("linear", tmp_path, resume=True)
    assert asked == [first[-1].job]
    assert [(cell.job, cell.result) for cell in second] == [(cell.job, cell.result) for cell in first]


def test_a_results_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "facts-linear.json").write_text('{"cells": [{"job": {"nonsense": 1}}]}')
    with pytest.raises(InvalidValue, match="without --resume"):
        measured("linear", tmp_path, resume=True)


@pytest.mark.parametrize("border", [1, 2, 7, 60, 1000])
@pytest.mark.parametrize("guess", [1, 50, 4000])
def test_search_finds_the_border(border, guess):
    asked = []

    def recall(size):
        asked.append(size)
        return 1.0 if size <= border else 0.5

    assert largest(recall, guess, goal=0.99, ratio=1.0001) == border
    assert min(asked) >= 1
    near = largest(recall, guess, goal=0.99, ratio=1.1)
    assert near <= border <= 1.1 * near


def test_search_says_none():
    assert largest(lambda _: 0.0, 30, goal=0.99, ratio=1.1) == 0


def test_full_jobs_are_those_of_the_issue():
    linear = PARTS["linear"].jobs(quick=False)
    assert {(job.rule, job.width, job.seed) for job in linear} >= {
        (rule, width, seed)
        for rule in ("hebbian", "ridge", "trained")
        for width in (16, 32, 64, 128)
        for seed in range(5)
    }
    updates = PARTS["updates"].jobs(quick=False)
    assert all((job.inserts, job.deletes) == (10_000, 5_000) for job in updates)
