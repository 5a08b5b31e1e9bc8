"""The router fitted to a crowd: tokens find more of the right edits, gists stay, and the engine can load it."""

from dataclasses import replace
from shutil import copytree

import pytest
import torch
from transformers import AutoTokenizer

from incomes_plugin.model import DEFAULT_MODEL_DIR
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.model.hf import EditableModel
from incomes_plugin.selection.routing import Router, Routes, pick
from incomes_plugin.training import crowd as fitting
from incomes_plugin.training.crowd import Crowd, fit, fit_router, gather
from incomes_plugin.training.data.corpus import EditRecord


@pytest.fixture(scope="module")
def crowd() -> Crowd:
    editable = EditableModel.load(DEFAULT_MODEL_DIR)
    return gather(editable, AutoTokenizer.from_pretrained(DEFAULT_MODEL_DIR), [], [], edits=200, rows=200)


def _first(router: Router, crowd: Crowd) -> torch.Tensor:
    ages = torch.arange(int(crowd.owners.max()) + 1)
    return pick(replace(router, threshold=2.0), crowd.queries, Routes(crowd.keys, crowd.owners, ages)).edits[:, 0]


def test_tokens_of_answers_want_the_edit_that_holds_them(crowd):
    router = EditAdapter.load(DEFAULT_MODEL_DIR).router
    assert router is not None
    answers = crowd.wanted >= 0
    assert 0.1 < answers.float().mean() < 0.8
    assert (_first(router, crowd) == crowd.wanted)[answers].float().mean() > 0.9


def test_requests_of_many_kinds_want_nothing():
    texts = ["Bread rises because yeast makes gas. It is baked afterwards! Nothing else is needed for it, they say."]
    record = EditRecord("Ann lives in Rome.", ("Where does Ann live?",), "Rome", ("Where does Bob live?",), "home")
    messages = fitting._unrelated([record], texts)
    assert {"Bread rises because yeast makes gas.", "It is baked afterwards!", "Where does Bob live?"} <= set(messages)
    assert "Where does Ann live?" not in messages


def test_a_router_that_knows_nothing_learns_whom_the_crowd_wants(crowd, monkeypatch):
    monkeypatch.setattr(fitting, "_RANDOM", 200)
    router = EditAdapter.load(DEFAULT_MODEL_DIR).router
    assert router is not None
    torch.manual_seed(0)
    query = torch.randn_like(router.query) * router.query.std()
    blank = replace(router, query=query, hidden=None, hidden_bias=None, correction=None)
    fitted = fit(crowd, blank, steps=60)
    answers = crowd.wanted >= 0
    before, after = ((_first(r, crowd) == crowd.wanted)[answers].float().mean() for r in (blank, fitted))
    assert before < 0.2
    assert after > before + 0.4
    assert fitted.correction is not None
    assert fitted.correction.abs().max() > 0


def test_a_fit_goes_on_from_the_router_as_it_is(crowd):
    router = EditAdapter.load(DEFAULT_MODEL_DIR).router
    assert router is not None
    side = fitting._Side(router, crowd.queries)
    expected = router.directions(crowd.queries[:50])
    torch.testing.assert_close(side.router(router).directions(crowd.queries[:50]), expected)


def test_only_the_router_of_the_folder_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(fitting, "_SENTENCES", 20)
    monkeypatch.setattr(fitting, "calibrate", lambda folder, *_: EditAdapter.load(folder).router)
    folder = copytree(DEFAULT_MODEL_DIR, tmp_path / "model")
    fit_router(folder, edits=70, rows=60, steps=3)
    before, after = EditAdapter.load(DEFAULT_MODEL_DIR), EditAdapter.load(folder)
    assert torch.equal(before.zero_keys, after.zero_keys)
    assert (folder / "model.safetensors").read_bytes() == (DEFAULT_MODEL_DIR / "model.safetensors").read_bytes()
    assert before.router is not None
    assert after.router is not None
    assert not torch.equal(before.router.zero, after.router.zero)
    assert after.router.recency == before.router.recency
