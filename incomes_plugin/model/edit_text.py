"""How the text of an edit becomes tokens: the same in server, laboratory and tests."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence


class EditText:
    """Token ids of an edit: of its NFC form without white space around it, spelled as inside a running text.

    Most tokenizers join a space to the word behind it, so a word that begins a text is another token than the same word
    in a question: "Korvan" and " Korvan". Where a space in front costs no token, an edit gets one, and its first name
    is found again.

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
