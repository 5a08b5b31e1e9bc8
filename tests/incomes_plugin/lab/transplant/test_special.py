"""Special tokens: by map, name and role; none collapses into another."""

import pytest

from incomes_plugin.errors import InvalidValue
from incomes_plugin.lab.transplant.special import match_specials
from incomes_plugin.lab.transplant.tokens import read_vocabulary
from tests.incomes_plugin.lab.transplant.conftest import byte_level, sentence_piece

ONE = "<|endoftext|>"


def base():
    tokenizer = sentence_piece(
        [], specials=["<|user|>", "<late>"], bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    return read_vocabulary(tokenizer)


def gpt2_like(*more):
    tokenizer = byte_level([], bos_token=ONE, eos_token=ONE, unk_token=ONE)
    tokenizer.add_special_tokens({"additional_special_tokens": list(more)})
    return read_vocabulary(tokenizer)


def names(pairs, donor, base):
    return {donor.by_id[d].name: base.by_id[b].name for d, b in pairs.items()}


def test_one_token_for_many_roles_takes_the_end_only():
    donor, own = gpt2_like("<|im_start|>"), base()
    found = match_specials(own, donor, {}, left_out={own.specials["<late>"].id})
    assert names(found.copied, donor, own) == {ONE: "</s>"}
    assert [token.name for token in found.carried] == ["<s>", "<pad>", "<|user|>"]
    assert found.renamed == {"</s>": ONE}
    assert [donor.by_id[i].name for i in found.unmatched] == ["<|im_start|>"]


def test_name_before_role():
    donor, own = gpt2_like("</s>"), base()
    found = match_specials(own, donor, {})
    assert names(found.copied, donor, own) == {"</s>": "</s>", ONE: "<s>"}
    assert len(set(found.copied.values())) == len(found.copied)


def test_explicit_map_before_all():
    donor, own = gpt2_like("<|im_start|>"), base()
    found = match_specials(own, donor, {"<|im_start|>": "<|user|>", ONE: "<pad>"})
    assert names(found.copied, donor, own) == {"<|im_start|>": "<|user|>", ONE: "<pad>"}
    assert found.unmatched == ()


@pytest.mark.parametrize(
    "explicit", [{"nothing": "<s>"}, {ONE: "the"}, {ONE: "<s>", "<|im_start|>": "<s>"}], ids=["donor", "base", "twice"]
)
def test_impossible_maps(explicit):
    with pytest.raises(InvalidValue) as raised:
        match_specials(base(), gpt2_like("<|im_start|>"), explicit)
    assert raised.value.param == "map"


@pytest.mark.data
def test_real_pairs(vocabularies):
    gpt2, llama = vocabularies["gpt2"], vocabularies["llama2"]
    into_gpt2 = match_specials(llama, gpt2, {})
    assert names(into_gpt2.copied, gpt2, llama) == {ONE: "</s>"}
    assert {token.name for token in into_gpt2.carried} == {"<s>", "<unk>"}
    into_llama = match_specials(gpt2, llama, {})
    assert names(into_llama.copied, llama, gpt2) == {"</s>": ONE}
    assert {llama.by_id[i].name for i in into_llama.unmatched} == {"<s>", "<unk>"}
