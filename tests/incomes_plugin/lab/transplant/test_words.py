"""The base's cutting with the donor's ids: known words stay, whole words become the donor's, texts come back."""

import pytest
import torch
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer

from incomes_plugin.errors import InvalidValue
from incomes_plugin.lab.data.facts import FactSource
from incomes_plugin.lab.transplant.checkpoint import write_checkpoint
from incomes_plugin.lab.transplant.cutting import Cut
from incomes_plugin.lab.transplant.digits import digit_scheme
from incomes_plugin.lab.transplant.matrices import TensorPlace
from incomes_plugin.lab.transplant.methods import Recipe
from incomes_plugin.lab.transplant.prepare import prepare
from incomes_plugin.lab.transplant.tokens import TokenKind, read_vocabulary
from incomes_plugin.lab.transplant.words import keep_words
from tests.incomes_plugin.lab.transplant.conftest import byte_level, sentence_piece

TEXT = "Call 870 or  12345, x12y 3.14%\n7 in 1990. Zoë: 你好 1234 🙂 <tool>    end"
OWN = [" the", " ca", "bb", "é", "12"]
OTHERS = [" the", " cat", "cab", "é", " 12", "199", "bage", " the cat"]


def base_tokenizer():
    """Byte-level BPE that splits text into words; its own " ca", "bb" make " cab" of pieces the donor lacks."""
    tokenizer = byte_level(OWN, eos_token="</s>")
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


def donors():
    end = "<|end|>"
    return {
        "bytes": byte_level(OTHERS, eos_token=end),
        "added": byte_level(OTHERS, ["    ", "<tool>"], eos_token=end),
        "pieces": sentence_piece(OTHERS, bos_token="<s>", eos_token="</s>"),
    }


def forms(tokenizer, text):
    """The bytes of every token."""
    vocabulary = read_vocabulary(tokenizer)
    return [vocabulary.by_id[index].form for index in tokenizer(text, add_special_tokens=False)["input_ids"]]


@pytest.mark.parametrize("kind", ["bytes", "added", "pieces"])
def test_only_whole_words_of_the_donor_are_cut_otherwise(kind):
    donor, base = donors()[kind], base_tokenizer()
    kept, vocabulary = keep_words(base, donor)
    assert forms(kept, "the cabbage") == forms(base, "the cabbage")
    assert forms(kept, " the cat") == [b" the", b" cat"] != forms(base, " the cat")
    assert forms(kept, "cab") == [b"cab"] != forms(base, "cab")
    assert forms(kept, " 12 1990") == forms(base, " 12 1990")
    assert kept.decode(kept(TEXT, add_special_tokens=False)["input_ids"]) == TEXT
    assert (kept.eos_token_id, kept.bos_token_id) == (donor.eos_token_id, donor.bos_token_id)
    assert sorted(kept.get_vocab().values()) == list(range(len(kept)))
    before = read_vocabulary(donor)
    for token in vocabulary.tokens[: before.size]:
        if token.kind is not TokenKind.IDLE:
            assert token.form == before.by_id[token.id].form
            assert read_vocabulary(kept).by_id[token.id].form == token.form


@pytest.mark.parametrize("kind", ["bytes", "added", "pieces"])
def test_what_no_text_becomes_is_idle(kind):
    kept, vocabulary = keep_words(base_tokenizer(), donors()[kind])
    idle = {token.id for token in vocabulary.tokens if token.kind is TokenKind.IDLE}
    assert idle >= {token.id for token in vocabulary.tokens if token.form == b" the cat"}
    for text in ("the cat", TEXT, *OWN, *OTHERS, *map(chr, range(32, 400))):
        assert not idle & set(kept(text, add_special_tokens=False)["input_ids"])


def test_a_base_that_does_not_split_words_is_refused():
    for base in (byte_level(OWN, eos_token="</s>"), sentence_piece(OWN, bos_token="<s>", eos_token="</s>")):
        with pytest.raises(InvalidValue, match="splits text into words") as refused:
            keep_words(base, donors()["bytes"])
        assert refused.value.param == "cut"


@pytest.mark.data
def test_a_real_tokenizer_cuts_edits_as_the_default_model_does(real_folders, real_base, tmp_path):
    prepared = prepare(real_base, real_folders["gpt2"], {}, Cut.WORDS)
    tokenizer, base = prepared.fitted.tokenizer, AutoTokenizer.from_pretrained(real_base)
    assert digit_scheme(tokenizer) == digit_scheme(base)
    assert prepared.fitted.word_start_kept
    sources, estimated = prepared.rows.sources, set(prepared.rows.estimated)
    alike = 0
    for fact in FactSource(3, held_out=True).distinct(200):
        ids, old = (t(fact.statement, add_special_tokens=False)["input_ids"] for t in (tokenizer, base))
        assert tokenizer.decode(ids) == fact.statement
        alike += [int(sources[i]) for i in ids] == old
        for index in estimated & set(ids):  # a word that the base had no token for
            assert len(base(tokenizer.decode([index]), add_special_tokens=False)["input_ids"]) > 1
    assert alike > 120
    write_checkpoint(prepared, Recipe("subword"), tmp_path / "out")
    place = prepared.pairs[0].base
    new, old_rows = TensorPlace(place.name, tmp_path / "out" / place.file.name).read(), place.read()
    shared = sources >= 0
    assert torch.equal(new[shared], old_rows[sources[shared]])
    again = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert again(TEXT)["input_ids"] == tokenizer(TEXT)["input_ids"]
