"""The transplant benchmark: donors learn and are resumed, cells are measured once, the page says what they hold."""

import argparse

import pytest
import torch

from benchmarks import transplant
from benchmarks.donors import DonorRecipe, _Run
from benchmarks.transplant_report import draw, markdown

RECIPE = DonorRecipe("none", 0, width=16, steps=60, learning_rate=3e-2)


def bits(seed, *values, web=()):
    after = {side: dict(zip(("omp 2", "omp 4", "ridge"), found, strict=False)) for side, found in
             (("edits", values), ("web", web))}  # fmt: skip
    return {"tokenizer": "gpt2", "cut": "words", "seed": seed, "before": {"edits": 2.0, "web": 4.0}, "after": after}


def verdict(seed, found, *reasons):
    assessment = {"verdict": found, "reasons": [{"verdict": found, "reason": reason} for reason in reasons]}
    return {"tokenizer": "gpt2", "cut": "words", "seed": seed, "assessment": assessment}


CELLS = {
    "assess-gpt2-words-0": verdict(0, "go"),
    "assess-gpt2-words-untrained": verdict("untrained", "no", "it is noise"),
    "bits-gpt2-words-0": bits(0, 2.6, 2.4, 2.3, web=(4.6, 4.4, 4.3)),
    "bits-gpt2-words-1": bits(1, 2.8, 2.6, 2.3),
    "bits-gpt2-words-untrained": bits("untrained", 3.6, 3.5, 3.4),
    "edits-default": {"success": {"100": {"right": 39, "asked": 40, "ci": [0.87, 0.99], "refused": 0}}},
    "edits-gpt2-words-0-omp": {
        "success": {"100": {"right": 26, "asked": 40, "ci": [0.5, 0.78], "refused": 10,
                            "by_spelling": {"as before": [14, 14], "cut otherwise": [5, 6], "estimated": [7, 20]}}}
    },
    "same-gpt2": {"prompts": 50, "hidden_states_bitwise": 50},
}  # fmt: skip
WHOLE = {
    "command": "c", "date": "d", "commit": "e", "text_bytes": 8192, "cells": CELLS,
    "donor": {"layers": 1, "width": 16, "steps": 30},
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


def test_a_cell_is_measured_once(tmp_path, monkeypatch):
    monkeypatch.setattr(transplant, "unpack_tokenizers", lambda *_: {})
    bench = transplant.Bench(argparse.Namespace(work=tmp_path, data=tmp_path))
    calls = []
    for _ in range(2):
        bench._cell("same-gpt2", lambda: calls.append(1) or {"prompts": 1})
    assert (len(calls), bench.cells) == (1, {"same-gpt2": {"prompts": 1}})


def test_the_page_and_the_picture(tmp_path):
    page = markdown(WHOLE)
    assert "## gpt2, words: bits per byte" in page
    assert "| before | 2.000 |  | 4.000 |" in page
    assert "| omp 4 | 2.500 ± 0.141 | 3.500 | 4.400 |" in page
    assert "| gpt2-words-0-omp | 26 of 40 [50–78 %], 67% |" in page
    assert "| gpt2-words-0-omp | 14 of 14 | 5 of 6 | 7 of 20 |" in page
    assert "| gpt2-words-0 | go | – | 67% | 1.20 |" in page
    assert "| gpt2-words-untrained | no | it is noise | – | 1.75 |" in page
    draw(CELLS, tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
