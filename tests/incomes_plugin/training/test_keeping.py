"""The rule is fitted to a model: it keeps what answers need, drops the rest, and lies in the adapter afterwards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from incomes_plugin.model import DEFAULT_MODEL_DIR
from incomes_plugin.model.hf import EditableModel
from incomes_plugin.training import keeping
from incomes_plugin.training.data.facts import FactSource
from tests.tiny_model import TinyModel, write_tiny_model

MAX_GISTS = 120  # its tokens are bytes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("keeping") / "model", TinyModel(max_gists=MAX_GISTS, routed=True))


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(folder)


def test_places_are_those_of_the_answer(tokenizer: PreTrainedTokenizerBase) -> None:
    for fact in FactSource(3, held_out=False).distinct(60):
        start = keeping.answer_start(fact)
        ids, places = keeping.answer_places(tokenizer, fact.statement, fact.answer, start)
        assert str(tokenizer.decode(ids[places.start : places.stop])).lower() == fact.answer.lower()


def test_the_rule_of_the_default_model_keeps_what_is_read() -> None:
    editable = EditableModel.load(DEFAULT_MODEL_DIR)
    editable.adapter = replace(editable.adapter, keep=None)
    tokenizer = AutoTokenizer.from_pretrained(DEFAULT_MODEL_DIR)
    rule = keeping.fit(editable, tokenizer, [], facts=150)
    facts = FactSource(3, held_out=True).distinct(30)
    said = [(fact.statement, fact.answer, keeping.answer_start(fact)) for fact in facts]
    keys, read = keeping._labelled(editable, tokenizer, said)
    kept = keys @ rule.weight + rule.bias >= 0
    assert kept[read].float().mean() >= 0.97
    assert kept[~read].float().mean() < 0.4


def test_main_writes_the_rule_beside_the_model(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    assert keeping.main([str(folder), "--facts", "20", "--budget", "7"]) == 0
    editable = EditableModel.load(folder)
    assert editable.adapter.keep is not None
    assert editable.adapter.keep.budget == 7
    fitted = keeping.fit(editable, tokenizer, [], facts=20)  # a rule that is there does not narrow what it is fitted to
    torch.testing.assert_close(fitted.weight, editable.adapter.keep.weight)
    torch.testing.assert_close(fitted.bias + keeping.MARGIN, editable.adapter.keep.bias)


def test_capture_follows_the_rule(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    ids = list(tokenizer("The price of the L73 router is 28 euros.")["input_ids"])
    full = EditableModel.load(folder)
    full.adapter = replace(full.adapter, keep=None)
    gist = full.capture(ids)
    middle = gist.keys[0].flatten(1).mean(0)
    full.adapter = replace(full.adapter, keep=keeping.KeepRule(middle, -(gist.keys[0].flatten(1) @ middle).median(), 9))
    thin = full.capture(ids)
    assert thin.num_gists == 9
    assert full.adapter.keep is not None
    torch.testing.assert_close(thin.values, gist.values[:, full.adapter.keep.kept(gist.keys)])
