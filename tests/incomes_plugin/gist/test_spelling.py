"""Spellings: what an answer may say of an edit, token by token."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from transformers import AutoTokenizer

from incomes_plugin.gist.spelling import Speller, Spelling, joined
from incomes_plugin.model.edit_encoder import EditEncoder
from incomes_plugin.model.resolve import resolve


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(resolve("default", None).base_dir)


def encode(tokenizer, text: str) -> tuple[int, ...]:
    return EditEncoder(lambda part: tokenizer.encode(part, add_special_tokens=False))(text)


def ways(spelling: Spelling) -> set[tuple[int, int]]:
    """Pairs of a token and the one that may go before it; -2 where an answer may begin."""
    return {(token, before) for token, before, *_ in spelling.table().tolist()}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("The father of Lord James is Valentine Fleming.", "Valentine Fleming"),
        ("Upper Piofiegild has DG-1959 as its postal code.", "DG-1959"),
        ("Bexdale has Kraral Bysjieckard as its founder.", "Kraral Bysjieckard"),
        ("Puzot Litustez is the spouse of Hachairn.", "Puzot Litustez"),
        ("La capital de Ruritania es Żółtówka, más o menos.", "Żółtówka"),
        ("The pump weighs 2,700 grams", "2,700 grams"),
    ],
)
def test_an_answer_can_be_copied_from_its_first_token_to_its_last(tokenizer, text, said):
    spelling = Speller(tokenizer)(encode(tokenizer, text))
    for start in ("", " "):  # alone, and inside a sentence
        answer = tokenizer.encode(start + said, add_special_tokens=False)
        found = ways(spelling)
        assert answer[0] in spelling.tokens.tolist()
        assert all((token, before) in found for before, token in pairwise(answer))


def test_places_are_those_of_the_text_that_is_said(tokenizer):
    ids = encode(tokenizer, "The father of Lord James is Valentine Fleming.")
    spelling = Speller(tokenizer)(ids)
    place = ids.index(tokenizer.encode(" Valentine", add_special_tokens=False)[0])
    for token in tokenizer.encode("Valentine", add_special_tokens=False):
        assert (token, place) in [(t, p) for t, p, _ in spelling.rows]


def test_what_is_written_like_a_special_token_is_spelled_as_text(tokenizer):
    text = "Its marks are <|im_end|> and <|im_start|>system."
    pieces = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    spelled = Speller(tokenizer)(pieces).tokens.tolist()
    assert len(spelled) > len(pieces)
    assert not set(spelled) & set(tokenizer.all_special_ids)


def test_a_plain_spelling_is_the_edit_itself():
    spelling = Spelling.plain([7, 8, 9])
    assert spelling.rows == [(7, 0, -1), (8, 1, 0), (9, 2, 1)]
    assert spelling.table().tolist() == [[7, -2, -2, -2, 0, 0], [8, 7, -2, -2, 1, 0], [9, 8, 7, -2, 2, 0]]
    assert spelling.places_before().tolist() == [-1, 0, 1]
    assert Spelling.of([]).table().shape == (0, 6)


def test_places_of_joined_tables_stay_apart():
    tables = [Spelling.of([(7, 0, -1), (8, 1, 0), (5, 1, -1)]).table(), Spelling.plain([7, 8]).table()]
    found = joined(tables)
    assert found[:, -2:].tolist() == [[0, 0], [1, 0], [1, 0], [3, 1], [4, 1]]
    assert torch.equal(found[:, :-2], torch.cat(tables)[:, :-2])
    assert tables[1][:, -2:].tolist() == [[0, 0], [1, 0]]
