"""Where the numbers of an entry lie inside a page of an attention backend's own KV layout.

Backends pack keys and values differently. This file knows none of the packings: `PageLayout.probe` lets the backend
write numbered entries into one page and looks where each number went. From then on pages are read by index.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from incomes_plugin.errors import UnsupportedEngine

_BASE = 64  # a digit that every float dtype holds exactly

PageWriter = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class PageLayout:
    """Offsets of entries within a page.

    Attributes:
        keys, values: `[S, K, D]` int64, offset in the page of each number; S = entries per page.
    """

    keys: torch.Tensor
    values: torch.Tensor

    @property
    def page_size(self) -> int:
        """S, entries per page."""
        return int(self.keys.shape[0])

    @property
    def page_numel(self) -> int:
        """Numbers in a page."""
        return 2 * self.keys.numel()

    @classmethod
    def probe(cls, write_page: PageWriter, entry_shape: tuple[int, int, int], device: torch.device) -> PageLayout:
        """Find the layout.

        Args:
            write_page: writes keys and values `[S, K, D]` into an empty page, returns the page as flat numbers.
            entry_shape: (S, K, D).

        Raises:
            UnsupportedEngine: the backend does not keep every number at one place of its own.
        """
        half = entry_shape[0] * entry_shape[1] * entry_shape[2]
        number = torch.arange(2 * half, device=device)
        place = torch.zeros(2 * half, dtype=torch.int64, device=device)
        weight = 1
        while weight < 2 * half:
            digit = (number // weight % _BASE).view(2, *entry_shape)
            page = write_page(digit[0], digit[1])
            if page.numel() != 2 * half:
                raise UnsupportedEngine(f"the backend's page holds {page.numel()} numbers, expected {2 * half}")
            place += page.long() * weight
            weight *= _BASE
        offsets = place.argsort()
        if not torch.equal(place[offsets], number):
            raise UnsupportedEngine("the attention backend's KV layout is not a permutation of keys and values")
        return cls(offsets[:half].view(entry_shape), offsets[half:].view(entry_shape))
