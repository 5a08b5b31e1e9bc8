"""The base's cutting of numbers with the donor's pieces: ids stay, missing number pieces join, texts come back."""

import pytest
from transformers import AutoTokenizer

from incomes_plugin.errors import InvalidValue
from incomes_plugin.lab.transplant.cutting import Cut
from incomes_plugin.lab.transplant.digits import digit_scheme
from incomes_plugin.lab.transplant.numbers import keep_numbers
from incomes_plugin.lab.transplant.prepare import prepare
from tests.incomes_plugin.lab.transplant.conftest import byte_level, cutting_numbers, sentence_piece

TEXT = "Call 870 or  12345, x12y 3.14%\n7 in 1990. Zoë: 你好 1234 🙂"
PIECES = [" the", " 12", "199", "é"]
SCHEMES = {
    "single": r"\p{N}",
    "groups of 2 from the left": r"\p{N}{1,2}",
    "groups of 3 from the left": r"\p{N}{1,3}",
    "groups of 3 from the right": r"\p{N}{1,3}(?=(?:\p{N}{3})*(?:\P{N}|$))",
}


def donors():
    end = "<|end|>"
    return {
        "bytes": byte_level(PIECES, eos_token=end),
        "added": byte_level(PIECES, ["    ", "<tool>"], eos_token=end),
        "pieces": sentence_piece(PIECES, bos_token="<s>", eos_token="</s>"),
    }


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("kind", ["bytes", "added", "pieces"])
def test_numbers_are_cut_like_the_base(kind, scheme):
    donor, base = donors()[kind], cutting_numbers(SCHEMES[scheme])
    kept = keep_numbers(base, donor)
    assert digit_scheme(kept) == digit_scheme(base) == scheme
    assert kept.decode(kept(TEXT, add_special_tokens=False)["input_ids"]).strip() == TEXT
    before = donor.get_vocab()
    assert {name: kept.get_vocab()[name] for name in before} == before
    assert sorted(kept.get_vocab().values()) == list(range(len(kept)))
    assert (kept.eos_token_id, kept.bos_token_id) == (donor.eos_token_id, donor.bos_token_id)


def test_words_are_cut_like_the_donor():
    donor = donors()["pieces"]
    kept = keep_numbers(cutting_numbers(SCHEMES["groups of 2 from the left"]), donor)
    text = "the cat, the é"
    assert kept(text)["input_ids"] == donor(text)["input_ids"]


def test_a_base_without_a_rule_is_refused():
    donor = donors()["bytes"]
    learned = cutting_numbers(r"\p{N}{1,3}(?=7)|\p{N}+")
    assert digit_scheme(learned) == "learned"
    with pytest.raises(InvalidValue, match="no rule"):
        keep_numbers(learned, donor)


@pytest.mark.data
def test_a_real_tokenizer_with_the_default_models_numbers(real_folders, real_base):
    prepared = prepare(real_base, real_folders["gpt2"], {}, Cut.NUMBERS)
    tokenizer, base = prepared.fitted.tokenizer, AutoTokenizer.from_pretrained(real_base)
    assert digit_scheme(tokenizer) == digit_scheme(base) == "single"
    estimated = set(prepared.rows.estimated)
    for number in (0, 7, 12, 99, 100, 2877, 123456):
        ids, old = (t(f"is {number}", add_special_tokens=False)["input_ids"] for t in (tokenizer, base))
        assert not estimated & set(ids)
        assert [int(prepared.rows.sources[i]) for i in ids][1:] == old[1:]  # piece by piece the base's
