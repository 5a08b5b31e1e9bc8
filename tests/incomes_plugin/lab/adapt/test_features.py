"""What training computes from kept features is what the reference computes from tokens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from incomes_plugin.gist.types import Packed
from incomes_plugin.lab.adapt.base_features import kept
from incomes_plugin.lab.adapt.copied import SpelledEdits, covered, said_loss
from incomes_plugin.lab.adapt.features import FrozenBase, Ragged
from incomes_plugin.lab.adapt.reading import answered, gather
from incomes_plugin.model.hf import EditableModel
from incomes_plugin.selection.copying import mixed
from incomes_plugin.selection.picks import Picks
from tests.tiny_model import TinyModel, write_tiny_model

TEXTS = ["The pump is red.", "Nine lamps burn in the long hall."]
PROMPTS = ["How red is the pump?", "How many lamps burn?", "x"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("adapt") / "model", TinyModel())


@pytest.fixture(scope="module")
def model(folder) -> EditableModel:
    return EditableModel.load(folder, folder / "adapter")


@pytest.fixture(scope="module")
def tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


def prompt_ids(tokenizer, text: str) -> list[int]:
    messages = [{"role": "user", "content": text}]
    rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return tokenizer.encode(rendered, add_special_tokens=False)


@pytest.fixture(params=[False, True], ids=["whole", "prefixed"])
def frozen(request, model, tokenizer) -> FrozenBase:
    prefix = prompt_ids(tokenizer, "y")[: len(tokenizer.encode("<|im_start|>user\n"))] if request.param else ()
    return FrozenBase(model.decoder, model.adapter.template, model.adapter.shape, prefix)


def test_edits_are_captured_as_the_reference_captures_them(frozen, model, tokenizer):
    ids = [tokenizer.encode(text, add_special_tokens=False) for text in TEXTS]
    found = frozen.edits(ids)
    for i, text in enumerate(ids):
        gist = model.capture(text)
        features = model.adapter.standardise(found.features[i])
        torch.testing.assert_close(features, gist.features.unpack(), atol=0.05, rtol=0)
        latents = Packed.of(model.adapter.codec.encode(found.keys[i], found.values[i]))
        torch.testing.assert_close(latents.unpack(), gist.latents.unpack(), atol=0.05, rtol=0)


def test_questions_have_the_features_that_routing_sees(frozen, model, tokenizer):
    prompts = [prompt_ids(tokenizer, text) for text in PROMPTS]
    found = frozen.questions(prompts)
    for i, prompt in enumerate(prompts):
        start, end = model.adapter.template.question_span(prompt, 64)
        heads = model._heads(prompt)
        expected = torch.cat([heads[n].key[0, start:end].flatten(1) for n in model.adapter.shape.feature_layers], -1)
        torch.testing.assert_close(found[i], expected, atol=1e-4, rtol=1e-4)


def test_answers_get_the_logits_of_the_reference(frozen, model, tokenizer, monkeypatch):
    texts = [tokenizer.encode(text, add_special_tokens=False) for text in TEXTS]
    prompts = [prompt_ids(tokenizer, text) for text in PROMPTS]
    answers = [tokenizer.encode(text, add_special_tokens=False) for text in ("red", "nine", "no")]
    edits, found = frozen.edits(texts), frozen.answers(prompts, answers)
    logits = [[2.0, -0.5], [1.0, 0.0], [3.0, 1.0]]
    order = [[0, 1], [1, 0], [0, 1]]
    gists = [model.capture(text) for text in texts]
    pool = model.pool(gists)
    given_back, latents = kept(model.adapter.codec, edits)
    rows = answered(
        model.decoder, model.adapter.reader, model.adapter.shape, found, [0, 1, 2], gather(given_back, order, logits)
    )
    copier = model.adapter.copier
    copier.held.data.copy_(-torch.rand_like(copier.held))
    spellings = [gist.spelling for gist in gists]
    picks = SpelledEdits(latents, spellings).of(copier, order, logits)
    own = model.decoder.unembed(rows.hidden)
    table = picks.table[rows.prompt]
    of_rows = picks.keys[rows.prompt], table, picks.bias[rows.prompt], rows.said, covered(table, rows.said, rows.prompt)
    tokens = table[..., 0]
    shares = copier.weights(rows.hidden, *of_rows)
    assert bool((shares.held < 0).any())
    got = mixed(own, shares, tokens).log_softmax(-1)
    learned = rows.place >= torch.tensor([0, 1, 0])[rows.prompt]  # the second answer's first token is given
    whole, alone = said_loss(copier, own, rows.hidden, rows.said, rows.labels, picks, rows.prompt, learned)
    assert learned.sum() == len(learned) - 1
    torch.testing.assert_close(whole, -got.gather(1, rows.labels[:, None])[learned].mean())
    alone_shares = shares._replace(nothing=torch.full((len(own),), -200.0))
    copied_only = mixed(own, alone_shares, tokens) - own.logsumexp(-1, keepdim=True)
    can = (table[..., 0] == rows.labels[:, None]).any(-1) & learned
    assert bool(can.any())
    torch.testing.assert_close(alone, -copied_only.gather(1, rows.labels[:, None])[can].mean())
    row = 0
    for i, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        bias = torch.nn.functional.logsigmoid(torch.tensor(logits[i]))
        monkeypatch.setattr(
            model, "route", lambda *_, i=i, bias=bias: replace(Picks.none(), edits=tuple(order[i]), bias=bias)
        )
        whole = model.logits([*prompt, *answer], pool, len(prompt))
        expected = whole[len(prompt) - 1 : -1]
        mine = got[row : row + len(answer)]
        torch.testing.assert_close(mine, expected.log_softmax(-1), atol=2e-3, rtol=1e-3)
        assert rows.labels[row : row + len(answer)].tolist() == answer
        row += len(answer)


def test_ragged_sequences_are_padded_behind():
    found = Ragged.of([torch.ones(2, 3), torch.full((1, 3), 2.0)])
    padded, mask = found.padded([1, 0])
    assert len(found) == 2
    assert mask.tolist() == [[True, False], [True, True]]
    assert padded[0, 1].tolist() == [0, 0, 0]
