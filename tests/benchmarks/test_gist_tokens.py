"""The gist tokens benchmark: what it captures, and what it writes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoTokenizer

from benchmarks.gist_tokens import markdown
from benchmarks.gist_variants import ROUNDINGS, Frames, GistTokens, learnable
from incomes_plugin.lab.adapt.features import FrozenBase, Ragged
from incomes_plugin.model.hf import EditableModel
from tests.tiny_model import TinyModel, write_tiny_model

TEXTS = ["The pump is red.", "Nine lamps burn in the long hall."]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("gists") / "model", TinyModel())


def test_untrained_gist_tokens_are_what_the_base_makes_of_tokens_behind_the_edit(folder):
    model = EditableModel.load(folder, folder / "adapter")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = [tokenizer.encode(text, add_special_tokens=False) for text in TEXTS]
    shape, template = model.adapter.shape, model.adapter.template
    frames = Frames(FrozenBase(model.decoder, template, shape), texts, shape.layers[-1] + 1)
    variant, behind = GistTokens(model.decoder, shape, frames, 2), [5, 9]
    variant.capturing.tokens = nn.Parameter(model.decoder.embed(torch.tensor(behind)).detach())
    keys, values = variant.capture([1, 0])
    for row, text in enumerate((texts[1], texts[0])):
        heads = model._heads([*template.capture_ids(text), *behind])
        for place, layer in enumerate(shape.layers):
            torch.testing.assert_close(keys[row, :, place], heads[layer].key[0, -2:], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(values[row, :, place], heads[layer].value[0, -2:], atol=1e-4, rtol=1e-4)
    picked = variant.picked([[0, 1], [1]], [[1.0, 0.0], [2.0]])
    assert picked.keys.shape == (2, len(shape.layers), shape.num_kv_heads, 4, shape.head_dim)
    assert picked.bias[1].isinf().tolist() == [False, False, True, True]
    torch.testing.assert_close(picked.keys[1, :, :, :2], keys[0].permute(1, 2, 0, 3))


def test_learning_reaches_the_gist_tokens(folder):
    model = EditableModel.load(folder, folder / "adapter")
    shape = model.adapter.shape
    frames = Frames(FrozenBase(model.decoder, model.adapter.template, shape), [[3, 4, 5]], shape.layers[-1] + 1)
    variant = GistTokens(model.decoder, shape, frames, 1)
    variant.capture([0])[0].sum().backward()
    changed = [variant.capturing.tokens, *variant.capturing.up]
    assert all(part.grad is not None and bool(part.grad.abs().sum() > 0) for part in changed[:1] + changed[2:])


def test_rows_are_written_as_a_table():
    success = {"all": {"right": 0.5, "of": 2}}
    row = {"variant": "trained, G = 1", "bytes_per_edit": 3074, "loss": 0.25, "success": success}
    machine = {"cpu": "some", "cores": 2}
    found = markdown({"command": "c", "date": "d", "commit": "1", "machine": machine, "steps": 3, "rows": [row]})
    assert "| trained, G = 1 | 3,074 | 0.25 | 50.0 of 2 |" in found


def test_what_inference_mode_made_can_be_learned_from(folder):
    with torch.inference_mode():
        made = torch.ones(2)
    assert made.is_inference()
    assert not learnable(Ragged(made, torch.tensor([0, 2]))).flat.is_inference()


@pytest.mark.parametrize(("kind", "most"), [("int8", 1 / 127), ("fp8", 1 / 14)])
def test_rounding_keeps_each_token_to_eight_bits(kind, most):
    numbers = torch.randn(2, 3, 4, 5) * torch.tensor([1.0, 100.0, 0.01])[:, None, None]
    off = (ROUNDINGS[kind](numbers) - numbers).abs()
    bound = most * (numbers.flatten(2).abs().amax(-1)[..., None, None] if kind == "int8" else numbers.abs() + 1e-4)
    assert bool((off <= bound).all())
    assert len(ROUNDINGS[kind](numbers)[0, 0].unique()) > 10
