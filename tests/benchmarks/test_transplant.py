"""The transplant benchmark: donors learn and are resumed, cells are measured once, the page says what they hold."""

import pytest
import torch

from benchmarks.donors import DonorRecipe, _Run
from benchmarks.transplant import cell, markdown
from incomes_plugin.lab.transplant.methods import METHODS

RECIPE = DonorRecipe("none", 0, width=16, steps=60, learning_rate=3e-2)
ASSESSMENT = {"verdict": "no", "copied": 900, "tokens": 1000, "reasons": [{"verdict": "no", "reason": "it is noise"}]}
CELLS = {
    "words assessment": ASSESSMENT,
    "words bits": {"bytes": 90, "before": 2.0, "after": {"omp 4": 2.5, "ridge": 2.25}},
    "edits before": {"right": 39, "chosen": 40, "asked": 40},
    **{f"words edits {name}": {"right": 30, "chosen": 38, "asked": 40} for name in METHODS},
}
WHOLE = {
    "command": "c", "date": "d", "commit": "e", "cells": CELLS,
    "donor": {"tokenizer": "gpt2", "layers": 1, "width": 16, "steps": 30},
}  # fmt: skip


def a_language(tokens):
    """Every token is followed by the next one, of 20 in a vocabulary of 40."""
    return (torch.arange(tokens) % 20).int()


def test_a_donor_learns_and_rows_it_never_saw_are_zero():
    run = _Run(RECIPE, 40, a_language(RECIPE.steps * 2048 + 1))
    run._train_step()
    first = float(run.loss.detach())
    while run._step < RECIPE.steps:
        run._train_step()
    assert float(run.loss.detach()) < 0.5 * first
    rows = run.model.get_input_embeddings().weight
    assert not rows[20:].any()
    assert (rows[:20].norm(dim=1) > 0).all()


def test_a_stopped_donor_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.donors.SAVE_EVERY", 2)
    recipe = DonorRecipe("none", 0, width=16, steps=4)
    ids = a_language(4 * 2048 + 1)
    stopped = _Run(recipe, 40, ids)
    steps = iter(range(3))
    monkeypatch.setattr(stopped, "_train_step", lambda: next(steps) < 3 and _Run._train_step(stopped))
    with pytest.raises(StopIteration):
        stopped.train(tmp_path / "state.pt")
    resumed = _Run(recipe, 40, ids)
    resumed._load(tmp_path / "state.pt")
    assert resumed._step == 2
    resumed.train(tmp_path / "state.pt")
    assert resumed._step == 4
    assert not (tmp_path / "state.pt").exists()


def test_a_cell_is_measured_once(tmp_path):
    calls = []
    for _ in range(2):
        cell(tmp_path, "words bits", lambda: calls.append(1) or {"bytes": 1})
    assert len(calls) == 1
    assert (tmp_path / "words bits.json").is_file()


def test_the_page():
    page = markdown(WHOLE)
    assert "| the base, its own tokenizer | 2.000 |" in page
    assert "| omp 4 | 2.500 |" in page
    assert "| the base, its own tokenizer | 39 of 40, picked 40 |" in page
    assert "| ridge | 30 of 40, picked 38 |" in page
    assert "* words: no, 900 of 1,000 rows copied. it is noise" in page
    without = {name: found for name, found in CELLS.items() if "edits" not in name}
    assert "Edits answered" not in markdown(WHOLE | {"cells": without})
