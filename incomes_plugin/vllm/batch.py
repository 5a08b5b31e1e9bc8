"""The picks of all requests that read in a step, side by side. Only what has changed since the last step is copied."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from incomes_plugin.pool.picked import PickedEdit
from incomes_plugin.vllm.traces import AnswerTrace


@dataclass(eq=False)
class PickedTokens:
    """What one request reads, from its picks to its end.

    Attributes:
        picks: one edit or more.
        bias: `[E]` float32, b of reading, of each token of the picks.
        edit_of: `[E]` int64, which of the picks a token belongs to.
        trace: collects its attribution; None if nobody asked for it.
    """

    picks: Sequence[PickedEdit]
    bias: torch.Tensor
    edit_of: torch.Tensor
    trace: AnswerTrace | None

    @classmethod
    def of(cls, picks: Sequence[PickedEdit], bias: torch.Tensor, trace: AnswerTrace | None) -> PickedTokens:
        """The tokens of these picks; `bias` has b of each edit, `[k]`."""
        counts = torch.tensor([pick.keys.shape[2] for pick in picks], device=bias.device)
        edit_of = torch.arange(len(picks), device=bias.device).repeat_interleave(counts)
        return cls(picks, bias.repeat_interleave(counts), edit_of, trace)


class ReadBatch:
    """Picks of Q requests, each in a slot of its own, padded to the longest. Padding has the bias -inf.

    Args:
        like: any picked edit.

    Attributes:
        requests: in the order of their slots. No slot between them is empty.
        keys: for each reading layer `[Q, K, D, E]` float32: transposed, as the product with queries wants them.
        values: for each reading layer `[Q, K, E, D]` float32.
        bias: `[Q, 1, 1, E]` float32.
        edit_of: `[Q, E]` int64; -1 for a pad.
    """

    keys: Sequence[torch.Tensor]
    values: Sequence[torch.Tensor]
    bias: torch.Tensor
    edit_of: torch.Tensor

    def __init__(self, like: PickedEdit) -> None:
        self.requests: list[PickedTokens] = []
        self._wanted: Sequence[PickedTokens] = []
        layers, kv_heads, _, head_dim = like.keys.shape
        self._keys = like.keys.new_zeros(layers, 0, kv_heads, 0, head_dim, dtype=torch.float32)
        self._values = self._keys.new_zeros(layers, 0, kv_heads, 0, like.values.shape[-1])
        self._bias = self._keys.new_zeros(0, 0)
        self._edit_of = self._keys.new_zeros(0, 0, dtype=torch.int64)

    def set(self, wanted: Sequence[PickedTokens]) -> None:
        """Hold exactly these requests. Requests that were there already stay in their slots, except those that move
        into a slot which has become empty."""
        if wanted == self._wanted:
            return
        self._wanted = wanted
        staying = set(map(id, wanted))
        for slot in reversed(range(len(self.requests))):
            if id(self.requests[slot]) not in staying:
                self._leave(slot)
        present = set(map(id, self.requests))
        new = [request for request in wanted if id(request) not in present]
        self._make_room(len(wanted), max(len(request.bias) for request in wanted))
        for request in new:
            self._join(request)
        self._view_slots_in_use()

    def _leave(self, slot: int) -> None:
        """A request leaves, and the last one moves into its slot."""
        last = len(self.requests) - 1
        if slot != last:
            for part, dim in self._parts():
                part.select(dim, slot).copy_(part.select(dim, last))
            self.requests[slot] = self.requests[last]
        self.requests.pop()

    def _join(self, request: PickedTokens) -> None:
        slot, tokens = len(self.requests), len(request.bias)
        self._keys[:, slot, :, :tokens] = torch.cat([pick.keys for pick in request.picks], 2)
        self._values[:, slot, :, :tokens] = torch.cat([pick.values for pick in request.picks], 2)
        self._bias[slot, :tokens] = request.bias
        self._bias[slot, tokens:] = -torch.inf
        self._edit_of[slot, :tokens] = request.edit_of
        self._edit_of[slot, tokens:] = -1
        self.requests.append(request)

    def _make_room(self, slots: int, width: int) -> None:
        """Make room by doubling the slots, so that a request that joins seldom causes more copying than its own
        numbers."""
        have, had = self._bias.shape
        if slots <= have and width <= had:
            return
        count, width = have if slots <= have else max(slots, 2 * have), max(width, had)
        layers, _, kv_heads, _, head_dim = self._keys.shape
        old = list(self._parts())
        self._keys = self._keys.new_zeros(layers, count, kv_heads, width, head_dim)
        self._values = self._keys.new_zeros(layers, count, kv_heads, width, self._values.shape[-1])
        self._bias = self._keys.new_full((count, width), -torch.inf)
        self._edit_of = self._edit_of.new_full((count, width), -1)
        for (part, _), (new, dim) in zip(old, self._parts(), strict=True):
            new.narrow(dim, 0, have).narrow(-2 if dim else -1, 0, had).copy_(part)

    def _parts(self) -> Iterator[tuple[torch.Tensor, int]]:
        """All tensors, and their dimension of slots."""
        yield from ((self._keys, 1), (self._values, 1), (self._bias, 0), (self._edit_of, 0))

    def _view_slots_in_use(self) -> None:
        """Views of the slots in use, as wide as the longest request."""
        count, width = len(self.requests), max(len(request.bias) for request in self.requests)
        self.keys = self._keys[:, :count, :, :width].transpose(-1, -2).unbind()
        self.values = self._values[:, :count, :, :width].unbind()
        self.bias = self._bias[:count, None, None, :width]
        self.edit_of = self._edit_of[:count, :width]
