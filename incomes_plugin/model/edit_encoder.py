"""How the text of an edit becomes tokens. Server, lab and tests all use this."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence


class EditEncoder:
    """Token ids of an edit: its text in Unicode's NFC form, without white space around it, tokenised as if it stood
    inside a running text.

    Most tokenizers join a space to the word that follows it, so the first word of a text is another token than the same
    word inside a question: "Korvan" and " Korvan". Routing would not find the name again. So an edit gets a space in
    front where that costs no token.

    Args:
        encode: token ids of a text, without special tokens around it.
    """

    def __init__(self, encode: Callable[[str], Sequence[int]]) -> None:
        self._encode = encode
        alone, inside = list(encode("a")), list(encode(" a"))
        self._opening = " " if len(inside) == len(alone) and inside != alone else ""

    def __call__(self, text: str) -> tuple[int, ...]:
        """Token ids; none for a text of white space alone."""
        written = unicodedata.normalize("NFC", text).strip()
        return tuple(self._encode(self._opening + written)) if written else ()
