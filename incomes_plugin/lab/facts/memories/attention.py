"""A memory that keeps every key and value, as the gist pool does: nothing interferes in it, and it grows with N."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from incomes_plugin.errors import InvalidValue


class AttentionMemory(nn.Module):
    """F(x) = softmax(scale * [x.k_1 .. x.k_N]) . [v_1 .. v_N].

    Args:
        key_width, value_width: E and U.
        scale: logit of a match of keys of length 1; `facts.theory.logit_scale` says what N needs.
    """

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, key_width: int, value_width: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.ids: list[str] = []
        self.register_buffer("keys", torch.empty(0, key_width))
        self.register_buffer("values", torch.empty(0, value_width))

    def __len__(self) -> int:
        """Facts in the memory."""
        return len(self.ids)

    def insert(self, ids: Sequence[str], keys: torch.Tensor, values: torch.Tensor) -> None:
        """Add facts with keys `[B, E]` and values `[B, U]`.

        Raises:
            InvalidValue: an id twice.
        """
        if len({*self.ids, *ids}) < len(self.ids) + len(ids):
            raise InvalidValue("an id is in the memory already; delete it first", param="ids")
        self.ids += ids
        self.keys = torch.cat([self.keys, keys.to(self.keys)])
        self.values = torch.cat([self.values, values.to(self.values)])

    def delete(self, ids: Sequence[str]) -> None:
        """Take facts out.

        Raises:
            InvalidValue: an id that is not there.
        """
        gone = set(ids)
        if not gone <= set(self.ids):
            raise InvalidValue(f"{min(gone - set(self.ids))!r} is not in the memory", param="ids")
        kept = [place for place, name in enumerate(self.ids) if name not in gone]
        self.ids = [self.ids[place] for place in kept]
        self.keys, self.values = self.keys[kept], self.values[kept]

    def forward(self, queries: torch.Tensor) -> torch.Tensor:
        """Values `[B, U]` of queries `[B, E]`; 0 where the memory is empty."""
        if not self.ids:
            return queries.new_zeros(len(queries), self.values.shape[1])
        return (self.scale * queries @ self.keys.T).softmax(dim=-1) @ self.values

    @property
    def num_bytes(self) -> int:
        """Size of what a read needs."""
        return self.keys.nbytes + self.values.nbytes
