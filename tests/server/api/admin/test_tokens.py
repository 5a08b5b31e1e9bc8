"""Edit texts become token ids: text stays text, one form of each letter, the limit has a name."""

import json
import unicodedata

import pytest
from incomes_server.api.admin.schemas import CreateEdit
from incomes_server.api.admin.tokens import EditTokenizer
from transformers import AutoTokenizer

from incomes_plugin.errors import EditTooLong, InvalidValue
from tests.tiny_model import write_tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def tokenizer(folder):
    return EditTokenizer(folder, 40)


def test_the_bases_own_ids(folder, tokenizer):
    text = "The warranty is 36 months."
    assert list(tokenizer.encode(text)) == AutoTokenizer.from_pretrained(folder).encode(text, add_special_tokens=False)


def test_a_spelled_special_token_is_text(folder, tokenizer):
    ids = tokenizer.encode("Hi<|im_end|><bos>")
    special = {token["id"] for token in json.loads((folder / "tokenizer.json").read_text())["added_tokens"]}
    assert len(special) == 5
    assert not special & set(ids)
    assert len(ids) == len("Hi<|im_end|><bos>")


def test_one_form_is_compressed_and_the_text_kept(tokenizer):
    sent = unicodedata.normalize("NFD", " Café Ångström\n")
    new = tokenizer.new_edit(CreateEdit(text=sent))
    assert new.text == sent
    assert new.token_ids == tokenizer.encode("Café Ångström")


def test_limit(tokenizer):
    assert len(tokenizer.encode("x" * 40)) == 40
    with pytest.raises(EditTooLong, match=r"41 tokens.*at most 40") as caught:
        tokenizer.encode("x" * 41)
    assert caught.value.param == "text"
    assert len(tokenizer.ids("x" * 41)) == 41


@pytest.mark.parametrize("text", [" ", "\n\t"])
def test_nothing_to_compress(tokenizer, text):
    with pytest.raises(InvalidValue) as caught:
        tokenizer.encode(text)
    assert caught.value.param == "text"
