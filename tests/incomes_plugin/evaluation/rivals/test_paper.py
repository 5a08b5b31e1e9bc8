"""The paper's method against its equation, on a tiny model with one gist per edit."""

import json

import pytest
import torch
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from incomes_plugin.errors import GistFormatError, InvalidValue
from incomes_plugin.evaluation.backends.hf import HfGenerator
from incomes_plugin.evaluation.interface import EditText, EvalSettings, Question
from incomes_plugin.evaluation.rivals.paper import PaperModel, paper
from incomes_plugin.model.adapter import CONFIG_FILE
from incomes_plugin.model.rotary import rotate
from tests.tiny_model import TinyModel, write_tiny_model

ONE_GIST = TinyModel(max_gists=1, with_maps=False)
TEXTS = [[5 + i, 9, 30 + i, 7] for i in range(12)]


def write(folder, shape=ONE_GIST, selection="paper"):
    write_tiny_model(folder, shape)
    config = json.loads((folder / CONFIG_FILE).read_text())
    (folder / CONFIG_FILE).write_text(json.dumps(config | {"selection": selection}))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("paper"))


@pytest.fixture
def model(folder) -> PaperModel:
    return PaperModel(folder)


def test_queries_are_rotated_as_the_model_rotates_its_own(model):
    query = torch.randn(1, 3, 4, 32)
    positions = torch.arange(5, 8)[None]
    cos, sin = model.model.model.rotary_emb(query, positions)
    expected, _ = apply_rotary_pos_emb(query.transpose(1, 2), query.transpose(1, 2), cos, sin)
    assert torch.allclose(rotate(model.model, query, 5), expected.transpose(1, 2), atol=1e-6)


@pytest.mark.parametrize(("edits", "temperature"), [(9, 1.0), (10, 0.45), (12, 0.45)])
def test_selection_is_the_equation(model, edits, temperature):
    model.fill(TEXTS[:edits])
    model._start(4)
    query = torch.randn(1, 1, 4, 32)
    rotated = rotate(model.model, query, 4)[0, 0]
    head = 3  # of 4 query heads over 2 key heads: the second key head
    keys = torch.cat([model.adapter.zero_keys[0][1][None], model._keys[0][:, 1]])
    values = torch.cat([torch.zeros(1, 32), model._values[0][:, 1]])
    weights = (keys @ rotated[head] / 32**0.5 / temperature).softmax(0)
    assert torch.allclose(model._read(0, query)[0, 0, head], weights @ values, atol=1e-5)


def test_cached_decoding_reads_at_the_right_positions(model):
    model.fill(TEXTS)
    prompt = [1, 40, 41, 42]
    tokens, _ = model.answer(prompt, max_tokens=6, stop_id=-1)
    again = []
    for _ in range(6):
        again += model.answer(prompt + again, max_tokens=1, stop_id=-1)[0]
    assert tokens == again


def test_pool_changes_the_model_and_an_edit_does_not_see_it(model):
    prompt = [1, 40, 41, 42]
    plain, nothing = model.answer(prompt, max_tokens=8, stop_id=-1)
    model.fill(TEXTS)
    keys = [layer.clone() for layer in model._keys]
    with_pool, weights = model.answer(prompt, max_tokens=8, stop_id=-1)
    assert with_pool != plain
    assert len(nothing) == 0
    assert weights.shape == (12,)
    assert 0 < weights.sum() < 1  # the rest is the zero-gist's
    model.fill(TEXTS)
    assert all(torch.equal(a, b) for a, b in zip(keys, model._keys, strict=True))


def test_method_answers_and_names_an_edit(folder):
    method = paper(HfGenerator(folder, 256), EvalSettings(max_answer_tokens=4))
    method.prepare([EditText(7, "Lamp c costs 20 euros."), EditText(9, "Lamp d costs 30 euros.")])
    (answer,) = method.ask([Question("q", "rewrite", None, "What does lamp c cost?", ("20 euros",), 7, cloze=False)])
    assert len(answer.tokens) <= 4
    assert answer.attributed in (7, 9)
    assert 0 < answer.attributed_weight < 1


def test_another_recipe_is_refused(tmp_path):
    write_tiny_model(tmp_path, ONE_GIST)
    with pytest.raises(InvalidValue, match="--model"):
        PaperModel(tmp_path)


def test_several_gists_are_refused(tmp_path):
    with pytest.raises(GistFormatError, match="one gist"):
        PaperModel(write(tmp_path, TinyModel(max_gists=4, with_maps=False)))
