"""Bits per byte: against a direct sum, and of models whose answer is known."""

import math

import pytest
import torch
from transformers import LlamaForCausalLM

from incomes_plugin.transplant.bits import bits_per_byte, passages
from tests.incomes_plugin.transplant.conftest import byte_level
from tests.incomes_plugin.transplant.models import write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    tokenizer = byte_level([" the"], eos_token="<|end|>", unk_token="<|unk|>")  # the matrix ends before the last
    folder = write_model(tmp_path_factory.mktemp("bits"), tokenizer, tied=False)
    return LlamaForCausalLM.from_pretrained(folder).eval(), tokenizer


def test_a_model_that_knows_nothing_pays_for_every_token_alike(model):
    knows_nothing, tokenizer = model
    with torch.no_grad():
        before = knows_nothing.lm_head.weight.clone()
        knows_nothing.lm_head.weight.zero_()
    found = bits_per_byte(knows_nothing, tokenizer, ["abc the", "x"])
    with torch.no_grad():
        knows_nothing.lm_head.weight.copy_(before)
    rows = len(before)
    assert found == pytest.approx((3 + 1 + 1) * math.log2(rows) / len("abc thex"))


def test_a_direct_sum(model):
    network, tokenizer = model
    text = "the é"
    ids = [tokenizer.eos_token_id, *tokenizer(text)["input_ids"]]
    with torch.no_grad():
        logs = network(input_ids=torch.tensor([ids])).logits[0].log_softmax(dim=-1)
    expected = -sum(float(logs[i, ids[i + 1]]) for i in range(len(ids) - 1)) / math.log(2) / len(text.encode())
    assert bits_per_byte(network, tokenizer, [text]) == pytest.approx(expected, rel=1e-5)


def test_passages_are_short_and_nothing_is_lost_before_the_end():
    text = "one two\n\n" + "word " * 300 + "\nlast é"
    found = passages(text, 10_000)
    assert found[0] == "one two"
    assert found[-1] == "last é"
    assert max(map(len, found)) <= 500
    assert " ".join(found).split() == text.split()
    assert passages(text, 5) == ["one two"]
    assert passages("", 5) == []
