"""The base's tokenizer with the donor's ids: whole words are the donor's tokens, all others are cut as before.

A body that has seen each word cut in one way does not know a name that is cut in another, and edits are mostly names.
Here text goes through the base's pipeline and merges, so what the base could spell keeps its pieces; only a word that
is one token of the donor, and was several of the base, becomes that token. Words with digits never do. Ids are the
donor's; pieces that only the base has stand behind its last id.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from incomes_plugin.errors import InvalidValue
from incomes_plugin.lab.transplant.tokens import ROLES, Token, TokenKind, Vocabulary, byte_alphabet, read_vocabulary


def keep_words(
    base: PreTrainedTokenizerBase, donor: PreTrainedTokenizerBase
) -> tuple[PreTrainedTokenizerFast, Vocabulary]:
    """The tokenizer, and its vocabulary with the donor's names for the donor's tokens.

    Raises:
        InvalidValue: the base's tokenizer is no byte-level BPE that splits text into words first.
    """
    state: dict[str, Any] = json.loads(base.backend_tokenizer.to_str())
    if state["model"].get("type") != "BPE" or not _splits_words(base.backend_tokenizer):
        raise InvalidValue("words can be kept of a byte-level BPE that splits text into words first", param="cut")
    found, own = read_vocabulary(donor), read_vocabulary(base)
    tokens = [*_reachable(base.backend_tokenizer, own, found), *_missing(own, found)]
    vocabulary = Vocabulary(tuple(tokens), found.roles)
    state["model"] |= {"vocab": {_name(token): token.id for token in tokens}, "ignore_merges": True}
    state["added_tokens"] = [
        entry for entry in json.loads(donor.backend_tokenizer.to_str())["added_tokens"] if entry["special"]
    ]
    state["post_processor"] = None
    roles = {f"{role}_token": value for role in ROLES if (value := getattr(donor, f"{role}_token", None))}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)), **roles), vocabulary


def _splits_words(tokenizer: Tokenizer) -> bool:
    splitter = tokenizer.pre_tokenizer
    pieces = [piece for piece, _ in splitter.pre_tokenize_str("é b")] if splitter else []
    return len(pieces) == 2 and pieces[0].endswith("Ã©") and pieces[1] == "Ġb"


def _reachable(splitter: Tokenizer, base: Vocabulary, donor: Vocabulary) -> Iterator[Token]:
    """The donor's tokens, ids without a hole; idle if the base's pipeline never makes one piece of their bytes."""
    for index in range(donor.size):
        token = donor.by_id.get(index, Token(index, "", b"", TokenKind.IDLE))
        if token.kind is TokenKind.SPECIAL:
            yield token
        elif donor.by_form.get(token.form) is token and (
            token.form in base.by_form or _is_new_word(splitter, token.form)
        ):
            yield replace(token, added=False)
        else:
            yield replace(token, kind=TokenKind.IDLE, added=False)


def _is_new_word(splitter: Tokenizer, form: bytes) -> bool:
    if any(0x30 <= byte <= 0x39 for byte in form):
        return False  # numbers stay as the base cuts them
    try:
        return len(splitter.pre_tokenizer.pre_tokenize_str(form.decode())) == 1
    except UnicodeDecodeError:
        return False  # part of a letter


def _missing(base: Vocabulary, donor: Vocabulary) -> Iterator[Token]:
    """Pieces that only the base has, in its order, behind the donor's."""
    forms = [token for token in base.tokens if token.kind is not TokenKind.SPECIAL and token.form not in donor.by_form]
    for place, token in enumerate(forms):
        yield Token(donor.size + place, _spelled(token.form), token.form, TokenKind.TEXT)


def _name(token: Token) -> str:
    """What the new tokenizer calls it; an idle token gets a name that no text is merged to."""
    if token.kind is TokenKind.SPECIAL:
        return token.name
    return f"<|idle-{token.id}|>" if token.kind is TokenKind.IDLE else _spelled(token.form)


def _spelled(form: bytes) -> str:
    return "".join(_letters()[byte] for byte in form)


@cache
def _letters() -> dict[int, str]:
    return {byte: letter for letter, byte in byte_alphabet().items()}
