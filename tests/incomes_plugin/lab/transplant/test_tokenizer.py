"""The fitted tokenizer: the donor's pieces, the base's special tokens, roles, template and space before text."""

import pytest
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from incomes_plugin.lab.transplant.special import match_specials
from incomes_plugin.lab.transplant.tokenizer import fit_tokenizer
from incomes_plugin.lab.transplant.tokens import read_vocabulary
from incomes_plugin.lab.transplant.word_start import WordStart, set_word_start, word_start
from tests.incomes_plugin.lab.transplant.conftest import byte_level, sentence_piece

TEXT = "Zoë said: 你好\n\n  1234 🙂 naïve"
CHAT = [
    {"role": "user", "content": "Who?"},
    {"role": "assistant", "content": "Zoë."},
    {"role": "user", "content": "No."},
]


def fit(base, donor):
    return fit_tokenizer(base, donor, match_specials(read_vocabulary(base), read_vocabulary(donor), {}))


@pytest.fixture(scope="module")
def default(real_base):
    return AutoTokenizer.from_pretrained(real_base)


@pytest.fixture(params=["gpt2", "llama2", "neox"])
def donor(request, real):
    return real[request.param]


def test_habits_are_seen():
    assert word_start(byte_level([]).backend_tokenizer) is WordStart.NEVER
    assert word_start(sentence_piece([]).backend_tokenizer) is WordStart.ALWAYS  # a normalizer sees every segment


@pytest.mark.parametrize("wanted", list(WordStart))
@pytest.mark.parametrize("make", [byte_level, sentence_piece])
def test_habits_are_changed_and_texts_come_back(make, wanted):
    tokenizer = make([" the"]).backend_tokenizer
    assert set_word_start(tokenizer, wanted)
    assert word_start(tokenizer) is wanted
    assert tokenizer.decode(tokenizer.encode("the cat").ids) == "the cat"


@pytest.mark.data
def test_habits_of_real_tokenizers_are_changed(donor):
    tokenizer = Tokenizer.from_str(donor.backend_tokenizer.to_str())
    before = word_start(tokenizer)
    for wanted in WordStart:
        # What follows one of GPT-NeoX's runs of spaces is a segment, too, and must not get a space of its own.
        possible = not (wanted is WordStart.ALWAYS and any(not t.special for t in donor.added_tokens_decoder.values()))
        assert set_word_start(tokenizer, wanted) == possible
        assert word_start(tokenizer) is (wanted if possible else before)
        assert tokenizer.decode(tokenizer.encode(TEXT, add_special_tokens=False).ids) == TEXT


@pytest.mark.data
def test_default_model_with_a_real_tokenizer(default, donor, vocabularies, tmp_path):
    specials = match_specials(read_vocabulary(default), vocabularies[donor.name_or_path.split("/")[-1]], {})
    fitted = fit_tokenizer(default, donor, specials)
    fitted.tokenizer.save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert fitted.word_start_kept
    assert word_start(tokenizer.backend_tokenizer) is word_start(default.backend_tokenizer) is WordStart.NEVER
    assert tokenizer.decode(tokenizer(TEXT)["input_ids"]) == TEXT
    ours, theirs = (t.apply_chat_template(CHAT, tokenize=True, return_dict=False) for t in (tokenizer, default))
    back = specials.copied | {new: old for old, new in fitted.carried_ids.items()}
    assert [back[i] for i in ours if i in back] == [i for i in theirs if i in set(default.all_special_ids)]
    assert tokenizer.pad_token_id == tokenizer.eos_token_id  # as the base has it
    assert tokenizer.bos_token_id != tokenizer.eos_token_id


@pytest.mark.data
def test_llama_keeps_its_begin_token_with_gpt2(real, vocabularies):
    specials = match_specials(vocabularies["llama2"], vocabularies["gpt2"], {})
    tokenizer = fit_tokenizer(real["llama2"], real["gpt2"], specials).tokenizer
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token) == ("<s>", "<|endoftext|>", "<unk>")
    adds = real["llama2"]("x")["input_ids"][0] == real["llama2"].bos_token_id
    assert (tokenizer("x")["input_ids"][0] == tokenizer.bos_token_id) == adds


def test_tokens_around_a_text_follow_the_base():
    base, donor = sentence_piece(["a"], bos_token="<s>", eos_token="</s>"), byte_level([], eos_token="<|end|>")
    plain = fit(base, donor).tokenizer
    assert plain.convert_ids_to_tokens(plain("a")["input_ids"]) == ["Ġ", "a"]
    base.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    around = fit(base, donor).tokenizer
    assert around.convert_ids_to_tokens(around("a")["input_ids"]) == ["<s>", "Ġ", "a", "<|end|>"]
    base.chat_template = "{{ messages[0]['content'] }}</s>"
    assert fit(base, donor).tokenizer.chat_template == "{{ messages[0]['content'] }}<|end|>"
