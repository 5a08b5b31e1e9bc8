"""Texts that must come back to the byte, as the tokens that recall has to say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from incomes_plugin.errors import InvalidValue


@dataclass(frozen=True)
class CramTarget:
    """One text, or one chunk of a text.

    Attributes:
        name: unique in a run.
        ids: its tokens, without an end token.
    """

    name: str
    ids: tuple[int, ...]


def tokens_of(tokenizer: PreTrainedTokenizerBase, text: str, name: str = "text") -> tuple[int, ...]:
    """Token ids that decode to exactly `text`. The text is not normalised.

    Raises:
        InvalidValue: it is empty, holds a special token, or does not come back from its tokens.
    """
    if not text:
        raise InvalidValue(f"{name} is empty; a verbatim text has at least one character", param="text")
    ids = tuple(tokenizer.encode(text, add_special_tokens=False))
    special = special_ids(tokenizer) & set(ids)
    if special:
        found = tokenizer.convert_ids_to_tokens(min(special))
        raise InvalidValue(f"{name} holds the special token {found!r}, which would end or disturb recall", param="text")
    if text_of(tokenizer, ids) != text:
        raise InvalidValue(
            f"{name} does not come back from its tokens: the tokenizer changes it; keep it as plain text", param="text"
        )
    return ids


def special_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Ids of all special tokens, named ones and added ones."""
    added = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return added | set(tokenizer.all_special_ids)


def text_of(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """The text of token ids, with nothing cleaned up."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def read_texts(file: Path) -> list[str]:
    """Texts of a JSONL file of objects with `text`.

    Raises:
        InvalidValue: no such file, a line is something else, or there are none.
    """
    if not file.is_file():
        raise InvalidValue(f"there is no file {file}", param="file")
    found = []
    for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
        try:
            text = json.loads(line)["text"]
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidValue(f'{file}, line {number}: {error!r}; expected {{"text": "…"}}', param="file") from error
        if not isinstance(text, str):
            raise InvalidValue(f"{file}, line {number}: text is no string", param="file")
        found.append(text)
    if not found:
        raise InvalidValue(f"{file} holds no texts", param="file")
    return found
