"""Vocabulary ids for gist tokens in somebody else's checkpoint: rows of the embedding that no text uses."""

from __future__ import annotations

import re

from transformers import PreTrainedTokenizerBase

_SPARE = re.compile(r"<GIST_\d+>|<\|?reserved_special_token_\d+\|?>|<\|reserved_\d+\|>|\[control_\d+\]|<unused\d+>")


def spare_ids(tokenizer: PreTrainedTokenizerBase, rows: int) -> list[int]:
    """Ids below `rows` that stand for nothing: reserved tokens by name, and embedding rows behind the vocabulary.

    Args:
        rows: rows of the embedding, often more than the tokenizer has tokens.
    """
    vocabulary = tokenizer.get_vocab()
    named = [token_id for token, token_id in vocabulary.items() if _SPARE.fullmatch(token)]
    behind = range(max(vocabulary.values()) + 1, rows)
    return [*sorted(i for i in named if i < rows), *behind]
