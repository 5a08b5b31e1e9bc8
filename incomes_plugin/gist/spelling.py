"""The spelling of an edit: every token by which an answer may say a piece of the edit's text, and which goes before it.

Most tokenizers join a space to the word that follows it, so a word at the beginning of an answer is other tokens than
inside a text: " Valentine" there, "Val", "ent", "ine" here. A spelling has both: the tokens of the edit, one after the
other, and for each word that is written otherwise without its space a way around it that comes back to the edit's own
tokens behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

BYTES = 8
"""Of one token of a spelling."""

SPELLED = 3
"""Tokens that an answer has said last, which are compared with those that go before a token of a spelling."""

COLUMNS = 3 + SPELLED
"""Of a table of spellings: token, the tokens before it, place, pick. See `Spelling.table`."""

NOTHING = -2
"""What goes before an edit's first token: no token, and not -1, which is what an answer has said that has said
nothing."""

_SPACES = ("Ġ", "▁")
"""What tokenizers write for the space in front of a word."""


@dataclass(frozen=True)
class Spelling:
    """S tokens that an answer may say.

    Attributes:
        tokens: `[S]` int32, ids.
        places: `[S]` int16, the token of the edit whose text each one says, or begins to say.
        links: `[S]` int16, which of the S goes before each; -1 for none.
    """

    tokens: torch.Tensor
    places: torch.Tensor
    links: torch.Tensor

    @classmethod
    def of(cls, rows: Iterable[Sequence[int]]) -> Spelling:
        """From (token, place, link) each."""
        flat = torch.tensor(list(rows), dtype=torch.int64).view(-1, 3)
        return cls(flat[:, 0].int(), flat[:, 1].short(), flat[:, 2].short())

    @classmethod
    def plain(cls, token_ids: Sequence[int]) -> Spelling:
        """The edit's own tokens alone."""
        return cls.of((token, place, place - 1) for place, token in enumerate(token_ids))

    @property
    def rows(self) -> list[tuple[int, int, int]]:
        """(token, place, link) each."""
        columns = (part.tolist() for part in (self.tokens, self.places, self.links))
        return list(zip(*columns, strict=True))

    @property
    def num_bytes(self) -> int:
        """Bytes of all three tensors."""
        return self.tokens.nbytes + self.places.nbytes + self.links.nbytes

    def table(self) -> torch.Tensor:
        """`[S, 6]` int64, all that copying compares with an answer: each token, the ids of the three before it, the
        nearest first (NOTHING where there is none), its place, and which of several picks it belongs to: 0."""
        tokens = torch.cat([self.tokens.long(), torch.tensor([NOTHING])])
        links = torch.cat([self.links.long(), torch.tensor([-1])])
        found, at = [tokens], links
        for _ in range(SPELLED):
            found.append(tokens[at])
            at = links[at]
        places = self.places.long()
        return torch.stack([*(column[:-1] for column in found), places, torch.zeros_like(places)], -1)

    def places_before(self) -> torch.Tensor:
        """`[S]` int64: the token of the edit that each one follows, -1 for the edit's first."""
        places = self.places.long()
        linked = places[self.links.long().clamp_min(0)]
        return torch.where(self.links >= 0, linked, places - 1)


def joined(tables: Sequence[torch.Tensor]) -> torch.Tensor:
    """Tables `[S, 6]` of several picks as one, `[sum of S, 6]`. Their places stay apart: an edit has no more places
    than its spelling has tokens, so each edit's begin where its spelling does."""
    found, first = torch.cat(list(tables)), 0
    for pick, table in enumerate(tables):
        own = found[first : first + len(table)]
        own[:, -2] += first
        own[:, -1] = pick
        first += len(table)
    return found


class Speller:
    """Makes spellings. What a text writes like a special token of the base is text in its spelling, too: no answer can
    copy the end of a turn.

    Args:
        tokenizer: a fast tokenizer of transformers, of the base.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def __call__(self, token_ids: Sequence[int]) -> Spelling:
        """The spelling of an edit, given as the token ids that are captured."""
        own = [(token, place, place - 1) for place, token in enumerate(token_ids)]
        written = self._tokenizer.convert_ids_to_tokens(list(token_ids))
        starts = [place for place, token in enumerate(written) if (token or "").startswith(_SPACES)]
        rows = list(own)
        for start, end in pairwise([*starts, len(token_ids)]):
            rows += self._around(token_ids, start, end, len(rows))
        return Spelling.of(rows)

    def _around(self, token_ids: Sequence[int], start: int, end: int, first: int) -> list[tuple[int, int, int]]:
        """The way around a word, the tokens `start` … `end - 1` of the edit; `first` is its place in the spelling."""
        inside = list(token_ids[start:end])
        text = self._text(inside)
        word = text.lstrip()
        alone = self._tokenizer(word, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)
        ids, offsets = alone["input_ids"], alone["offset_mapping"]
        if not word or ids == inside:
            return []
        same = 0  # tokens at the end that are the edit's own
        while same < min(len(ids), len(inside)) - 1 and ids[-1 - same] == inside[-1 - same]:
            same += 1
        ends = self._ends(inside, len(text) - len(word))
        rows = []
        for i in range(len(ids) - same):
            place = start + min(sum(end_of <= offsets[i][0] for end_of in ends), len(inside) - 1)
            rows.append((ids[i], place, first + i - 1 if i else -1))
        if end - same < len(token_ids):  # back to the edit's own tokens
            rows.append((token_ids[end - same], end - same, first + len(rows) - 1))
        return rows

    def _ends(self, inside: Sequence[int], cut: int) -> list[int]:
        """Where each token of a word ends in its text without the space."""
        return [len(self._text(inside[: i + 1])) - cut for i in range(len(inside))]

    def _text(self, token_ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(token_ids), clean_up_tokenization_spaces=False)
        return text
