"""Llama 2's and GPT-2's tokenizers, each way: texts come back, no row is missing, no special token collapses."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from incomes_plugin.lab.transplant.checkpoint import write_checkpoint
from incomes_plugin.lab.transplant.digits import digit_scheme
from incomes_plugin.lab.transplant.methods import Recipe
from incomes_plugin.lab.transplant.prepare import prepare

pytestmark = pytest.mark.data

TEXTS = [
    "你好，世界！",
    "Zoë ate naïve crème brûlée.",
    "one\n\n\ttwo\n",
    "🙂👩‍👩‍👧 ok",
    "x = 1234 * 56",
    "Привет",
    "    four",
]
ADDED = "<|tool|>"


def write(folder, tokenizer, *, missing):
    """A model whose matrix ends `missing` ids before its tokenizer does; the last of them is an added token."""
    tokenizer.add_tokens([ADDED])
    torch.manual_seed(len(tokenizer))
    config = LlamaConfig(
        vocab_size=len(tokenizer) - missing, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=1, tie_word_embeddings=False, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(
    scope="module", params=[("llama2", "gpt2"), ("gpt2", "llama2")], ids=["gpt2-for-llama", "llama-for-gpt2"]
)
def result(request, real_folders, tmp_path_factory):
    root = tmp_path_factory.mktemp("real")
    base, donor = (
        write(root / name, AutoTokenizer.from_pretrained(real_folders[name]), missing=missing)
        for name, missing in zip(request.param, (1, 5), strict=True)
    )
    prepared = prepare(base, donor, {})
    written = write_checkpoint(prepared, Recipe("ridge"), root / "out")
    return prepared, written, base, root / "out"


def test_texts_come_back_and_cuts_are_the_donors(result):
    prepared, _, base, out = result
    tokenizer, before = AutoTokenizer.from_pretrained(out), AutoTokenizer.from_pretrained(base)
    kept = [text for text in TEXTS if before.decode(before(text, add_special_tokens=False)["input_ids"]) == text]
    assert len(kept) >= len(TEXTS) - 1  # a tokenizer with a space before text loses one that is there already
    for text in kept:
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
    assert digit_scheme(tokenizer) == digit_scheme(prepared.donor.tokenizer)


def test_no_row_is_missing_and_ids_beyond_the_matrix_are_spelled(result):
    prepared, written, _, out = result
    last = set(range(prepared.donor.rows, prepared.donor.vocabulary.size))
    beyond = last & set(prepared.rows.estimated)
    assert prepared.donor.tokenizer.convert_tokens_to_ids(ADDED) in beyond  # the base's has no row either
    for name, part in (("model.embed_tokens.weight", "embedding"), ("lm_head.weight", "head")):
        weight = load_file(out / "model.safetensors")[name]
        assert torch.isfinite(weight).all()
        assert (weight.norm(dim=1) > 0).all()
        assert set(written.spelled[part]) == beyond
        assert len(weight[list(prepared.rows.estimated)].unique(dim=0)) > 0.99 * len(prepared.rows.estimated)


def test_special_tokens_keep_rows_of_their_own(result):
    _, _, base, out = result
    tokenizer, before = AutoTokenizer.from_pretrained(out), AutoTokenizer.from_pretrained(base)
    weight, old = (load_file(folder / "model.safetensors")["lm_head.weight"] for folder in (out, base))
    ids = [tokenizer.convert_tokens_to_ids(name) for name in tokenizer.all_special_tokens]
    assert len(weight[ids].unique(dim=0)) == len(ids)
    assert torch.equal(weight[tokenizer.eos_token_id], old[before.eos_token_id])
    assert torch.equal(weight[tokenizer.bos_token_id], old[before.bos_token_id])


def test_shared_text_is_the_same_to_the_body(result):
    prepared, _, base, out = result
    old, new = (AutoModelForCausalLM.from_pretrained(folder) for folder in (base, out))
    base_ids = prepared.base.vocabulary.by_form
    for text in ("世", "é", "\n", " the", "\t"):
        donor = prepared.donor.vocabulary.by_form.get(text.encode())
        if donor is None or text.encode() not in base_ids:
            continue
        pair = torch.tensor([[donor.id]]), torch.tensor([[base_ids[text.encode()].id]])
        with torch.inference_mode():
            after, before = (model.model(ids).last_hidden_state for model, ids in zip((new, old), pair, strict=True))
        assert torch.equal(after, before)
