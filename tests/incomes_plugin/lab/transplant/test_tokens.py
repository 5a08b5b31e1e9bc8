"""One byte form for byte-level BPE, SentencePiece and added tokens; matches over the border between them."""

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from incomes_plugin.errors import InvalidValue
from incomes_plugin.lab.transplant.alignment import align
from incomes_plugin.lab.transplant.tokens import TokenKind, byte_alphabet, read_vocabulary
from tests.incomes_plugin.lab.transplant.conftest import byte_level, sentence_piece

TEXTS = [" the", "é", " naïve", "\n", "世", "Ω", " 2", "\t", "😀"]


def form_of(tokenizer, text, vocabulary=None):
    """The bytes of the token ids of a text, put together."""
    vocabulary = vocabulary or read_vocabulary(tokenizer)
    return b"".join(vocabulary.by_id[index].form for index in tokenizer.encode(text, add_special_tokens=False))


def test_the_alphabet_is_a_bijection():
    assert sorted(byte_alphabet().values()) == list(range(256))
    assert (byte_alphabet()["Ġ"], byte_alphabet()["Ċ"]) == (0x20, 0x0A)


@pytest.mark.parametrize("text", TEXTS)
def test_forms_spell_the_text(text):
    assert form_of(byte_level([" the", "é", "世"]), text) == text.encode()
    assert form_of(sentence_piece([" the", "é", "世"]), text) == b" " + text.encode()  # SentencePiece's own space


def test_kinds():
    tokens = {token.name: token for token in read_vocabulary(sentence_piece([" the"], eos_token="</s>")).tokens}
    assert (tokens["<0x0A>"].kind, tokens["<0x0A>"].form) == (TokenKind.BYTE, b"\n")
    assert (tokens["▁the"].kind, tokens["▁the"].form) == (TokenKind.TEXT, b" the")
    assert tokens["</s>"].kind is TokenKind.SPECIAL
    plain = {token.name: token for token in read_vocabulary(byte_level([], ["<0x0A>", "Ġ "])).tokens}
    assert (plain["<0x0A>"].form, plain["Ġ "].form) == (b"<0x0A>", "Ġ ".encode())  # added: literally what they say


def test_same_bytes_over_the_border():
    pieces = [" the", "é", "世", "12"]
    base, donor = sentence_piece(pieces, eos_token="</s>"), byte_level([*pieces, " new"], eos_token="<|end|>")
    alignment = align(read_vocabulary(base), read_vocabulary(donor), base_rows=len(base))
    names = {donor.convert_ids_to_tokens(d): base.convert_ids_to_tokens(b) for d, b in alignment.copied.items()}
    assert (names["Ġthe"], names["Ã©"], names["ä¸ĸ"]) == ("▁the", "é", "世")
    assert (names["Ċ"], names["Ġ"], names["a"], names["Ã"]) == ("<0x0A>", "▁", "a", "<0xC3>")
    assert {donor.convert_ids_to_tokens(i) for i in alignment.new} == {"Ġn", "Ġne", "Ġnew"} | {"ä¸"}
    assert not alignment.unreached


def test_a_fallback_byte_beside_its_letter_is_not_reached():
    donor = read_vocabulary(sentence_piece([]))
    alignment = align(read_vocabulary(byte_level([])), donor, base_rows=256)
    names = {donor.by_id[i].name for i in alignment.unreached}
    assert {"<0x61>", "<0x20>"} <= names
    assert not names & {"<0x0A>", "<0x41>"}  # no text token holds those


def test_ids_beyond_the_matrix_are_no_source_and_no_anchor():
    base, donor = byte_level([" the"]), byte_level([" a"], ["  "])
    full = align(read_vocabulary(base), read_vocabulary(donor), base_rows=len(base))
    short = align(read_vocabulary(base), read_vocabulary(donor), base_rows=200)
    assert len(full.copied) == 257 - 1
    assert set(short.copied.values()) == set(range(200))
    assert len(full.anchors(donor_rows=100)) == 100


def test_added_text_matches_a_piece():
    base, donor = byte_level(["    "]), byte_level([], ["    "])
    copied = align(read_vocabulary(base), read_vocabulary(donor), base_rows=len(base)).copied
    assert base.convert_ids_to_tokens(copied[donor.convert_tokens_to_ids("    ")]) == "ĠĠĠĠ"


def test_word_pieces_are_refused():
    tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "##b": 2}, unk_token="[UNK]"))
    with pytest.raises(InvalidValue, match="WordPiece"):
        read_vocabulary(PreTrainedTokenizerFast(tokenizer_object=tokenizer))


@pytest.mark.data
@pytest.mark.parametrize("name", ["gpt2", "llama2", "neox"])
@pytest.mark.parametrize("text", [*TEXTS, "Zoë said: 你好，世界！\n\n    x = 1234 🙂 naïve"])
def test_real_forms_spell_the_text(real, vocabularies, name, text):
    spelled = form_of(real[name], text, vocabularies[name])
    assert spelled in (text.encode(), b" " + text.encode() if name == "llama2" else b"")


@pytest.mark.data
def test_real_tokenizers_meet_in_bytes(real, vocabularies):
    llama, gpt2, neox = vocabularies["llama2"], vocabularies["gpt2"], vocabularies["neox"]
    alignment = align(llama, gpt2, base_rows=llama.size)
    for text in ["é", "\n", "ü", " été", "\t"]:
        donor = gpt2.by_form.get(text.encode())
        assert donor is None or alignment.copied[donor.id] == llama.by_form[text.encode()].id
    assert {gpt2.by_form["é".encode()].name, llama.by_form["é".encode()].name} == {"Ã©", "é"}
    assert not {byte for byte in range(256) if gpt2.by_form[bytes([byte])].id not in alignment.copied}
    by_name = set(real["gpt2"].get_vocab()) & set(real["llama2"].get_vocab())
    assert len(alignment.copied) > 1.5 * len(by_name)
    spaces = align(llama, neox, base_rows=llama.size).copied
    assert neox.by_form[b"    "].added
    assert llama.by_id[spaces[neox.by_form[b"    "].id]].name == "▁▁▁▁"


@pytest.mark.data
def test_shared_counts_of_real_tokenizers(vocabularies):
    """A change here means that the canonical form changed."""
    found = {
        (base, donor): len(align(vocabularies[base], vocabularies[donor], vocabularies[base].size).copied)
        for base in vocabularies
        for donor in vocabularies
    }
    assert found == {
        ("gpt2", "gpt2"): 50_256, ("gpt2", "llama2"): 18_207, ("gpt2", "neox"): 36_937,
        ("llama2", "gpt2"): 18_207, ("llama2", "llama2"): 31_901, ("llama2", "neox"): 21_843,
        ("neox", "gpt2"): 36_937, ("neox", "llama2"): 21_828, ("neox", "neox"): 50_275,
    }  # fmt: skip
