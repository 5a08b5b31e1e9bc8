"""The reference model: what is captured, who reads, what stays the base's own to the bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from incomes_plugin.errors import FingerprintMismatch
from incomes_plugin.gist.spelling import Speller, Spelling
from incomes_plugin.gist.types import Gist
from incomes_plugin.model.decoder import Heads
from incomes_plugin.model.hf import EditableModel
from incomes_plugin.selection.rules import RoutingRules
from tests.tiny_model import write_tiny_model

NEVER = RoutingRules(threshold=1e9)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("hf") / "model")


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def model(folder: Path) -> EditableModel:
    return EditableModel.load(folder, folder / "adapter")


def ids_of(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)


def ask(tokenizer: PreTrainedTokenizerBase, question: str) -> list[int]:
    messages = [{"role": "user", "content": question}]
    return ids_of(tokenizer, tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


@pytest.fixture(scope="module")
def gists(model: EditableModel, tokenizer: PreTrainedTokenizerBase) -> list[Gist]:
    texts = [f"The warranty of pump Z{i} is {i * 7 % 50} months." for i in range(12)]
    return [model.capture(ids_of(tokenizer, text), edit_id=f"e{i}", version=2) for i, text in enumerate(texts)]


@pytest.fixture(scope="module")
def prompt(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return ask(tokenizer, "What is the warranty of pump Z4?")


def with_rules(model: EditableModel, rules: RoutingRules) -> EditableModel:
    return EditableModel(model.model, replace(model.adapter, rules=rules))


def test_an_adapter_of_another_base_is_refused(folder: Path, tmp_path: Path) -> None:
    other = write_tiny_model(tmp_path / "other", seed=5)
    with pytest.raises(FingerprintMismatch, match="incomes adapt"):
        EditableModel.load(other, folder / "adapter")


def test_a_gist_is_made_of_the_texts_own_tokens(model: EditableModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Every number follows from the keys and values of one forward pass over the framed text."""
    adapter, text = model.adapter, ids_of(tokenizer, "Ann is the boss.")
    gist = model.capture(text, edit_id="edit_7", version=3)
    assert (gist.edit, gist.num_tokens) == (("edit_7", 3), len(text))
    framed = ids_of(tokenizer, "<|im_start|>system\nAnn is the boss.<|im_end|>\n")
    place = slice(len(adapter.template.edit_prefix), len(adapter.template.edit_prefix) + len(text))
    assert framed[place] == text
    heads: dict[int, Heads] = {}
    model.decoder.run(model.decoder.embed(torch.tensor([framed])), 0, 4, on_layer=heads.__setitem__)
    features = torch.cat([heads[layer].key[0, place].flatten(1) for layer in adapter.shape.feature_layers], 1)
    close_to_packed(gist.features.unpack(), (features - adapter.mean) / adapter.scale)
    keys, values = (
        torch.stack([getattr(heads[layer], part)[0, place] for layer in adapter.shape.layers], 1)
        for part in ("key", "value")
    )
    close_to_packed(gist.latents.unpack(), adapter.codec.encode(keys, values))


def close_to_packed(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal but for the rounding to 8 bits."""
    step = expected.abs().amax(-1, keepdim=True) / 127
    assert ((found - expected).abs() <= 0.6 * step).all()


def test_without_picks_logits_are_the_bases_to_the_bit(
    model: EditableModel, gists: list[Gist], prompt: list[int]
) -> None:
    plain = model.logits(prompt)
    silent = with_rules(model, NEVER)
    assert torch.equal(silent.logits(prompt, silent.pool(gists)), plain)
    assert (silent.picks.edits, len(silent.picks.candidates)) == ((), 8)
    assert torch.equal(model.logits(prompt, model.pool([])), plain)
    with torch.inference_mode():
        torch.testing.assert_close(plain, model.model(torch.tensor([prompt])).logits[0], atol=1e-5, rtol=1e-5)


def test_rows_before_the_last_of_the_prompt_are_the_bases_to_the_bit(
    model: EditableModel, gists: list[Gist], prompt: list[int]
) -> None:
    ids = [*prompt, 40, 41, 42]
    plain = model.logits(ids)
    read = model.logits(ids, model.pool(gists), len(prompt))
    first = len(prompt) - 1
    assert torch.equal(read[:first], plain[:first])
    assert ((read[first:] - plain[first:]).abs().amax(-1) > 0.1).all()


def test_what_is_answered_does_not_change_the_picks(model: EditableModel, gists: list[Gist], prompt: list[int]) -> None:
    pool = model.pool(gists)
    alone = model.logits(prompt, pool)
    picks = model.picks.edits
    longer = model.logits([*prompt, 40, 41], pool, len(prompt))
    assert picks == model.picks.edits
    torch.testing.assert_close(longer[len(prompt) - 1], alone[-1], atol=1e-5, rtol=1e-5)


def test_the_question_alone_decides(
    model: EditableModel, tokenizer: PreTrainedTokenizerBase, gists: list[Gist], prompt: list[int]
) -> None:
    """Another question picks other edits; the features are those of the last user turn, in its context."""
    pool = model.pool(gists)
    found = {model.route(ask(tokenizer, f"And pump Z{i}? Who was it?"), pool).candidates for i in range(4)}
    assert len(found) > 1
    assert model.route([9], pool).edits  # one token is a question, too


def test_what_an_edit_weighs_does_not_depend_on_where_it_lies(
    model: EditableModel, gists: list[Gist], prompt: list[int]
) -> None:
    found = model.logits(prompt, model.pool(gists))
    turned = model.logits(prompt, model.pool(gists[::-1]))
    torch.testing.assert_close(found, turned, atol=1e-4, rtol=1e-4)


def test_attribution_is_what_was_read(model: EditableModel, gists: list[Gist], prompt: list[int]) -> None:
    model.logits([*prompt, 40], model.pool(gists), len(prompt))
    attribution = model.attribution
    weights = {(edit, version): weight for edit, version, weight in attribution.applied}
    assert weights.keys() == {gists[row].edit for row in model.picks.edits}
    assert sum(weights.values()) + attribution.none_weight == pytest.approx(1)
    assert 0.01 < attribution.none_weight < 0.99
    model.logits(prompt)
    assert (model.attribution.none_weight, model.attribution.applied) == (1, [])


def test_the_zero_gist_decides_how_much_is_read(
    model: EditableModel, gists: list[Gist], prompt: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, plain, bias = model.pool(gists), model.logits(prompt), model.adapter.reader.zero_bias
    monkeypatch.setattr(model.adapter.copier.sentinel_bias, "data", torch.tensor(1e4))
    monkeypatch.setattr(bias, "data", torch.full_like(bias, -1e4))
    model.logits(prompt, pool)
    assert model.attribution.none_weight == pytest.approx(0, abs=1e-5)
    monkeypatch.setattr(bias, "data", torch.full_like(bias, 1e4))
    found = model.logits(prompt, pool).log_softmax(-1)
    torch.testing.assert_close(found, plain.log_softmax(-1), atol=1e-4, rtol=1e-5)


def test_an_edit_is_captured_with_its_spelling(model: EditableModel, tokenizer: PreTrainedTokenizerBase) -> None:
    text = ids_of(tokenizer, "Ann is the boss.")
    assert model.capture(text).spelling.rows == Speller(tokenizer)(text).rows
    plain = EditableModel(model.model, model.adapter)
    assert plain.capture(text).spelling.rows == Spelling.plain(text).rows


def test_answers_copy_by_what_they_have_said(
    model: EditableModel, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all else silenced, the token whose last three tokens were said is copied, however likely the others are."""
    copier = model.adapter.copier
    for tensor, value in ((copier.query, 0.0), (copier.sentinel_bias, -50.0), (copier.match, 30.0)):
        monkeypatch.setattr(tensor, "data", torch.full_like(tensor, value))
    text = ids_of(tokenizer, "xbcd ybce zbdf")
    pool = model.pool([model.capture(text, edit_id="e")])
    prompt = ask(tokenizer, "xb")
    for said, following in (("xbc", "d"), ("ybc", "e"), ("zb", "d"), ("zbd", "f"), ("yb", "c"), ("y", "b")):
        logits = model.logits([*prompt, *ids_of(tokenizer, said)], pool, len(prompt))
        assert logits[-1].argmax() == ids_of(tokenizer, following)[0], said
    first = model.logits(prompt, pool)[-1].softmax(0)  # nothing is said: each of the edit's tokens alike
    tokens, counts = torch.tensor(model.capture(text).spelling.tokens.tolist()).unique(return_counts=True)
    torch.testing.assert_close(first[tokens], counts / counts.sum(), atol=1e-4, rtol=1e-4)


def test_answers_stop_before_the_stop_token(model: EditableModel, gists: list[Gist], prompt: list[int]) -> None:
    pool = model.pool(gists)
    answer = model.generate(prompt, pool, max_tokens=6, stop_ids=[])
    assert len(answer) == 6
    assert answer[0] == int(model.logits(prompt, pool)[-1].argmax())
    assert model.generate(prompt, pool, max_tokens=6, stop_ids=[answer[2]]) == answer[: answer.index(answer[2])]
    assert answer != model.generate(prompt, None, max_tokens=6, stop_ids=[])
