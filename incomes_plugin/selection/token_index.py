"""TokenIndex: which edits have tokens like a question's, without comparing the question with every edit.

in: rows of route keys as an arena holds them; out: for each token of a question the rows with the nearest tokens.
FAISS inverted lists of tokens in 8 bits, in host memory. The lists only name rows: `candidates.py` compares the edits
of these rows exactly, and also those of rows that the lists do not hold yet.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import torch

_PROBES = 32
"""Lists that are searched for each token of a question. Half as many lost 2.5 points of recall (ADR 0020)."""

_MOST_CODES = 1 << 17
"""Most tokens that are compared with one token of a question. A word that stands in every edit would otherwise be
compared with every edit."""

_TRAINED_ON = 64
"""Tokens from which the centre of a list is learnt, for each list."""

_ADDED_AT_ONCE = 8192
"""Tokens that join the lists while a search waits: some milliseconds."""

_OUTGROWN = 4
"""The lists are made anew when they hold this many times the rows that they were made for."""


class TokenIndex:
    """Inverted lists over the tokens of rows, which are numbered in the order in which they are added.

    One thread may add while another searches.

    Args:
        keys: `[M, W, R]` unit vectors: rows from which the lists learn their places. They are not added.

    Attributes:
        made_for: M.
        num_rows: rows added.
    """

    def __init__(self, keys: torch.Tensor) -> None:
        faiss = _faiss()
        tokens = keys[_distinct(keys)]
        lists = _num_lists(len(tokens))
        chosen = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(0))[: lists * _TRAINED_ON]
        self.made_for = len(keys)
        self.num_rows = 0
        self._growing = threading.Lock()
        self._quantizer = faiss.IndexFlatIP(keys.shape[-1])
        self._lists = faiss.IndexIVFScalarQuantizer(
            self._quantizer, keys.shape[-1], lists, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT, False
        )
        self._lists.cp.spherical = True
        self._lists.cp.min_points_per_centroid = 1  # else a small index warns
        self._lists.train(tokens[chosen].float().numpy())

    @property
    def num_bytes(self) -> int:
        """Bytes of the lists: code and row number of every token, and the centres of the lists."""
        places = self._lists.nlist * self._lists.d * torch.float32.itemsize
        return int(self._lists.ntotal * (self._lists.code_size + torch.int64.itemsize) + places)

    def add(self, keys: torch.Tensor) -> None:
        """Give rows `[M, W, R]` the next M numbers."""
        faiss = _faiss()
        real = _distinct(keys)
        numbers = torch.arange(self.num_rows, self.num_rows + len(keys))[:, None].expand(real.shape)[real]
        for part, names in zip(keys[real].split(_ADDED_AT_ONCE), numbers.split(_ADDED_AT_ONCE), strict=True):
            tokens, ids = part.float().numpy(), names.numpy()
            lists = self._quantizer.search(tokens, 1)[1][:, 0].copy()
            with self._growing:
                self._lists.add_core(len(ids), *map(faiss.swig_ptr, (tokens, ids, lists)))
        self.num_rows += len(keys)

    def nearest(self, directions: torch.Tensor, allowed: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The tokens nearest to each of a question's, best first.

        Args:
            directions: `[T, R]` float32 unit vectors.
            allowed: `[m]` bool: the numbers of the rows that may be found; those from m on may not.
            count: how many for each.

        Returns:
            Cosines `[T, count]`, and the numbers of their rows, -1 where there are no more.
        """
        import numpy as np

        faiss = _faiss()
        bits = np.packbits(allowed.numpy(), bitorder="little")
        asked = faiss.SearchParametersIVF(nprobe=_PROBES, max_codes=_MOST_CODES, sel=faiss.IDSelectorBitmap(bits))
        with self._growing:
            cosines, numbers = self._lists.search(directions.float().contiguous().numpy(), count, params=asked)
        return torch.from_numpy(cosines), torch.from_numpy(numbers)


@dataclass(frozen=True)
class IndexedRows:
    """The rows at the beginning of an arena that an index holds.

    Attributes:
        index: it may hold more: of an arena that these rows were moved from, and later rows.
        places: `[m]` int64, row of the arena of each number of the index; -1 for one that was not moved here.
        covered: the arena's rows 0 to covered - 1 are in the index.
    """

    index: TokenIndex
    places: torch.Tensor
    covered: int

    def owners(self, owners: torch.Tensor, num_edits: int) -> torch.Tensor:
        """Owner `[m]` of each number of the index.

        Args:
            owners: `[M]` of the first M rows of the arena, `num_edits` for a row of no edit.
        """
        seen = (self.places >= 0) & (self.places < len(owners))
        return owners[self.places.where(seen, 0)].where(seen, num_edits)


class ArenaIndex:
    """The index of an arena of route keys, or none yet. When the arena's rows move to another arena, the index goes
    with them.

    Attributes:
        rows: what it holds now; None without an index. Replaced as a whole, so that any thread may read it.
    """

    def __init__(self, rows: IndexedRows | None = None) -> None:
        self.rows = rows

    @property
    def covered(self) -> int:
        """Rows of the arena that are in the index."""
        return 0 if self.rows is None else self.rows.covered

    def grow(self, keys: torch.Tensor) -> None:
        """Take in the arena's rows `[M, W, R]`. Takes seconds to minutes where lists are made anew."""
        rows = self.rows
        if rows is None or _is_outgrown(rows, len(keys)):
            index, places, covered = TokenIndex(keys), torch.empty(0, dtype=torch.int64), 0
        else:
            index, places, covered = rows.index, rows.places, rows.covered
        strange = places.new_full((index.num_rows - len(places),), -1)  # taken in for an arena that was left meanwhile
        index.add(keys[covered:])
        self.rows = IndexedRows(index, torch.cat([places, strange, torch.arange(covered, len(keys))]), len(keys))

    def moved(self, kept: torch.Tensor) -> ArenaIndex:
        """The index of a new arena that begins with this one's rows `kept` (`[M]` bool), in their order."""
        rows = self.rows
        if rows is None or not kept[: rows.covered].any():
            return ArenaIndex()
        kept = kept[: rows.covered]
        target = (kept.cumsum(0) - 1).where(kept, -1)
        seen = (rows.places >= 0) & (rows.places < len(kept))
        return ArenaIndex(IndexedRows(rows.index, target[rows.places.where(seen, 0)].where(seen, -1), int(kept.sum())))


def _is_outgrown(rows: IndexedRows, num_rows: int) -> bool:
    """Whether an index for so many rows is better made anew: more than half of it is gone, or it has too few lists."""
    return 2 * rows.covered < rows.index.num_rows or num_rows > _OUTGROWN * rows.index.made_for


def _distinct(keys: torch.Tensor) -> torch.Tensor:
    """`[M, W]`, False for a token that repeats the one before it, as the padding of a row does."""
    distinct = torch.ones(keys.shape[:2], dtype=torch.bool)
    distinct[:, 1:] = (keys[:, 1:] != keys[:, :-1]).any(-1)
    return distinct


def _num_lists(num_tokens: int) -> int:
    """The power of two next to the square root: as many lists as tokens in each."""
    return 1 << max(0, round(num_tokens.bit_length() / 2))


def _faiss() -> Any:
    """FAISS, for one thread: others of its own would contend with the engine's. The setting is the calling thread's."""
    import faiss

    faiss.omp_set_num_threads(1)
    return faiss
