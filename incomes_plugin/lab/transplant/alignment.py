"""From two vocabularies: which tokens of the donor have a row in the base already, and which need a new one.

Tokens are the same if their bytes are. A fallback byte that is also a text token (SentencePiece's `<0x41>` beside "A")
never comes out of text. It gets no copy of that token's row; otherwise two tokens would have the same logit.
"""

from __future__ import annotations

from dataclasses import dataclass

from incomes_plugin.lab.transplant.tokens import TokenKind, Vocabulary

_LONGEST = 64
"""Bytes of the longest piece looked for; tokens beyond are runs of spaces or dashes."""


@dataclass(frozen=True)
class Alignment:
    """The donor's tokens, special ones left out.

    Attributes:
        copied: base id of every donor id that has one.
        new: donor ids without a counterpart in the base.
        unreached: donor ids that no text becomes.
    """

    copied: dict[int, int]
    new: tuple[int, ...]
    unreached: tuple[int, ...]

    def anchors(self, donor_rows: int) -> tuple[tuple[int, int], ...]:
        """(donor id, base id) of tokens that have a row in both matrices."""
        return tuple(pair for pair in self.copied.items() if pair[0] < donor_rows)


def align(base: Vocabulary, donor: Vocabulary, base_rows: int) -> Alignment:
    """Match by bytes.

    Args:
        base_rows: rows of the base's matrix; its ids beyond are no source.
    """
    copied: dict[int, int] = {}
    new: list[int] = []
    unreached: list[int] = []
    for token in donor.tokens:
        if token.kind is TokenKind.SPECIAL:
            continue
        if token.kind is TokenKind.IDLE or (token.kind is TokenKind.BYTE and donor.by_form[token.form].id != token.id):
            unreached.append(token.id)
            continue
        source = base.by_form.get(token.form)
        if source is None or source.id >= base_rows:
            new.append(token.id)
        else:
            copied[token.id] = source.id
    return Alignment(copied, tuple(new), tuple(unreached))


def pieces(form: bytes, base: Vocabulary, base_rows: int) -> list[int]:
    """Base ids that spell `form`, the longest match first from the left; bytes the base cannot spell are left out."""
    found: list[int] = []
    start = 0
    while start < len(form):
        end = min(len(form), start + _LONGEST)
        while end > start:
            token = base.by_form.get(form[start:end])
            if token and token.id < base_rows:
                found.append(token.id)
                break
            end -= 1
        start = max(end, start + 1)
    return found
