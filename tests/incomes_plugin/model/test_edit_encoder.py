"""An edit is spelled as inside a running text where that costs nothing."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Metaspace

from incomes_plugin.model.edit_encoder import EditEncoder


def of_words(vocabulary, **options):
    """A tokenizer whose words carry the space in front of them, as most pretrained ones have."""
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="?"))
    tokenizer.pre_tokenizer = Metaspace(**options)
    return tokenizer


def words_of(tokenizer, text):
    return [tokenizer.id_to_token(i) for i in EditEncoder(lambda part: tokenizer.encode(part).ids)(text)]


VOCABULARY = ("?", "a", "▁a", "Korvan", "▁Korvan", "▁pump")


def test_the_first_word_is_the_token_that_questions_have():
    assert words_of(of_words(VOCABULARY, prepend_scheme="never"), "Korvan pump") == ["▁Korvan", "▁pump"]


def test_a_tokenizer_that_puts_the_space_there_itself_gets_none():
    assert words_of(of_words(VOCABULARY, prepend_scheme="always"), "Korvan pump") == ["▁Korvan", "▁pump"]


def test_a_space_that_would_be_a_token_is_left_out():
    assert EditEncoder(lambda text: list(text.encode()))("x y") == tuple(b"x y")


@pytest.mark.parametrize("text", ["Korvan pump", "  Korvan pump\n", "Korvan pump\u2028"])
def test_white_space_around_it_does_not_count(text):
    encode = EditEncoder(lambda part: list(part.encode()))
    assert encode(text) == encode("Korvan pump")


def test_composed_letters_are_one_form():
    encode = EditEncoder(lambda part: list(part.encode()))
    assert encode("Zoe\u0308") == encode("Zo\u00eb")
    assert encode(" \n") == ()
