"""The picks of all requests that read in a step, side by side. Only what has changed since the last step is copied."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from incomes_plugin.gist.spelling import COLUMNS, NOTHING, SPELLED, joined
from incomes_plugin.pool.picked import PickedEdit
from incomes_plugin.selection.copying import Copier, Mixture, covering
from incomes_plugin.vllm.arrays import Arrays
from incomes_plugin.vllm.traces import AnswerTrace


@dataclass(eq=False)
class PickedTokens:
    """What one request reads and copies, from its picks to its end.

    Attributes:
        picks: one edit or more.
        bias: `[E]` float32, b of reading, of each token of the picks.
        edit_of: `[E]` int64, which of the picks a token belongs to.
        copy_bias: `[S]` float32, the same b of each token of their spellings.
        said_at: position of the last token that `said` knows.
        said: `[3]` int64, the last tokens that the answer has said, the latest first; -1 for nothing. While the request
            is in a batch, the batch has them.
        cover: `[S]` int64, how far it has said each place of the picks (`copying.covering`); the same holds for it.
        trace: collects its attribution; None if nobody asked for it.
    """

    picks: Sequence[PickedEdit]
    bias: torch.Tensor
    edit_of: torch.Tensor
    copy_bias: torch.Tensor
    said_at: int
    said: torch.Tensor
    cover: torch.Tensor
    trace: AnswerTrace | None

    @classmethod
    def of(
        cls, picks: Sequence[PickedEdit], bias: torch.Tensor, num_prompt_tokens: int, trace: AnswerTrace | None
    ) -> PickedTokens:
        """The tokens of these picks; `bias` has b of each edit, `[k]`."""
        counts = torch.tensor([pick.keys.shape[2] for pick in picks], device=bias.device)
        spelled = torch.tensor([len(pick.spelled) for pick in picks], device=bias.device)
        edit_of = torch.arange(len(picks), device=bias.device).repeat_interleave(counts)
        said = torch.full((SPELLED,), -1, device=bias.device)
        read_bias, copy_bias = bias.repeat_interleave(counts), bias.repeat_interleave(spelled)
        cover = torch.zeros_like(copy_bias, dtype=torch.int64)
        return cls(picks, read_bias, edit_of, copy_bias, num_prompt_tokens - 1, said, cover, trace)


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
        copy_keys: `[Q, S, C]` float32.
        copy_bias: `[Q, S]` float32.
        table: `[Q, S, 6]` int64; the token of a pad is -1, so that no answer says it, NOTHING goes before it, and its
            place and pick are 0.
        said: `[Q, 3]` int64; `copies.follow` brings it up to each step.
        cover: `[Q, S]` int64; likewise.
        arrays: all of it for compiled loops, on a CPU; else None.
    """

    keys: Sequence[torch.Tensor]
    values: Sequence[torch.Tensor]
    bias: torch.Tensor
    edit_of: torch.Tensor
    copy_keys: torch.Tensor
    copy_bias: torch.Tensor
    table: torch.Tensor
    said: torch.Tensor
    cover: torch.Tensor
    arrays: Arrays | None

    def __init__(self, like: PickedEdit) -> None:
        self.requests: list[PickedTokens] = []
        self._wanted: Sequence[PickedTokens] = []
        layers, kv_heads, _, head_dim = like.keys.shape
        self._keys = like.keys.new_zeros(layers, 0, kv_heads, 0, head_dim, dtype=torch.float32)
        self._values = self._keys.new_zeros(layers, 0, kv_heads, 0, like.values.shape[-1])
        self._bias = self._keys.new_zeros(0, 0)
        self._edit_of = self._keys.new_zeros(0, 0, dtype=torch.int64)
        self._copy_keys = self._keys.new_zeros(0, 0, like.copy_keys.shape[-1])
        self._copy_bias = self._keys.new_zeros(0, 0)
        self._table = self._edit_of.new_zeros(0, 0, COLUMNS)
        self._pad = self._edit_of.new_tensor([-1, *[NOTHING] * SPELLED, 0, 0])
        self._said = self._edit_of.new_zeros(0, SPELLED)
        self._cover = self._edit_of.new_zeros(0, 0)

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
        widths = max(len(request.bias) for request in wanted), max(len(request.copy_bias) for request in wanted)
        self._make_room(len(wanted), *widths)
        for request in new:
            self._join(request)
        self._view_slots_in_use()

    def _leave(self, slot: int) -> None:
        """A request leaves, with what it has said, and the last one moves into its slot."""
        last = len(self.requests) - 1
        leaving = self.requests[slot]
        leaving.said = self._said[slot].clone()
        leaving.cover = self._cover[slot, : len(leaving.copy_bias)].clone()
        if slot != last:
            for part, dim, _ in self._parts():
                part.select(dim, slot).copy_(part.select(dim, last))
            self.requests[slot] = self.requests[last]
        self.requests.pop()

    def _join(self, request: PickedTokens) -> None:
        slot, tokens, spelled = len(self.requests), len(request.bias), len(request.copy_bias)
        self._keys[:, slot, :, :tokens] = torch.cat([pick.keys for pick in request.picks], 2)
        self._values[:, slot, :, :tokens] = torch.cat([pick.values for pick in request.picks], 2)
        self._bias[slot, :tokens] = request.bias
        self._bias[slot, tokens:] = -torch.inf
        self._edit_of[slot, :tokens] = request.edit_of
        self._edit_of[slot, tokens:] = -1
        self._copy_keys[slot, :spelled] = torch.cat([pick.copy_keys for pick in request.picks])
        self._copy_bias[slot, :spelled] = request.copy_bias
        self._copy_bias[slot, spelled:] = -torch.inf
        self._table[slot, :spelled] = joined([pick.spelled for pick in request.picks])
        self._table[slot, spelled:] = self._pad
        self._said[slot] = request.said
        self._cover[slot, :spelled] = request.cover
        self._cover[slot, spelled:] = 0
        self.requests.append(request)

    def _make_room(self, slots: int, width: int, spelled: int) -> None:
        """Make room by doubling the slots, so that a request that joins seldom causes more copying than its own
        numbers."""
        have, width_had = self._bias.shape
        spelled_had = self._copy_bias.shape[1]
        if slots <= have and width <= width_had and spelled <= spelled_had:
            return
        count = have if slots <= have else max(slots, 2 * have)
        width, spelled = max(width, width_had), max(spelled, spelled_had)
        layers, _, kv_heads, _, head_dim = self._keys.shape
        old = list(self._parts())
        self._keys = self._keys.new_zeros(layers, count, kv_heads, width, head_dim)
        self._values = self._keys.new_zeros(layers, count, kv_heads, width, self._values.shape[-1])
        self._bias = self._keys.new_full((count, width), -torch.inf)
        self._edit_of = self._edit_of.new_full((count, width), -1)
        self._copy_keys = self._keys.new_zeros(count, spelled, self._copy_keys.shape[-1])
        self._copy_bias = self._keys.new_full((count, spelled), -torch.inf)
        self._table = self._pad.repeat(count, spelled, 1)
        self._said = self._said.new_full((count, SPELLED), -1)
        self._cover = self._cover.new_zeros(count, spelled)
        for (part, _, _), (new, dim, tokens) in zip(old, self._parts(), strict=True):
            new.narrow(dim, 0, have).narrow(tokens, 0, part.shape[tokens]).copy_(part)

    def _parts(self) -> Iterator[tuple[torch.Tensor, int, int]]:
        """All tensors, with their dimensions of slots and of tokens."""
        yield from ((self._keys, 1, -2), (self._values, 1, -2), (self._bias, 0, 1), (self._edit_of, 0, 1))
        yield from ((self._copy_keys, 0, 1), (self._copy_bias, 0, 1), (self._table, 0, 1))
        yield from ((self._said, 0, 1), (self._cover, 0, 1))

    def _view_slots_in_use(self) -> None:
        """Views of the slots in use, as wide as the longest request."""
        count, width = len(self.requests), max(len(request.bias) for request in self.requests)
        spelled = max(len(request.copy_bias) for request in self.requests)
        self.keys = self._keys[:, :count, :, :width].transpose(-1, -2).unbind()
        self.values = self._values[:, :count, :, :width].unbind()
        self.bias = self._bias[:count, None, None, :width]
        self.edit_of = self._edit_of[:count, :width]
        self.copy_keys = self._copy_keys[:count, :spelled]
        self.copy_bias = self._copy_bias[:count, :spelled]
        self.table = self._table[:count, :spelled]
        self.said = self._said[:count]
        self.cover = self._cover[:count, :spelled]
        self.arrays = self._arrays() if self._keys.device.type == "cpu" else None

    def _arrays(self) -> Arrays:
        counts = [(len(request.bias), len(request.copy_bias)) for request in self.requests]
        tokens, spelled = np.array(counts, dtype=np.int64).T.copy()
        keys, values = ([layer.numpy() for layer in part] for part in (self._keys, self._values))
        parts = (self._bias, self._copy_keys, self._copy_bias, self._table, self._said, self._cover)
        return Arrays(keys, values, tokens, spelled, *(part.numpy() for part in parts))

    def copied(self, hidden: torch.Tensor, copier: Copier) -> Mixture:
        """What the answers copy next: `Copier.weights` of hidden states `[Q, hidden]`."""
        return copier.weights(hidden, self.copy_keys, self.table, self.copy_bias, self.said, self.cover)

    def say(self, tokens: torch.Tensor, says: torch.Tensor | None) -> None:
        """The answers go on by one token.

        Args:
            tokens: `[Q]`.
            says: `[Q]` bool, which answers do; None for all of them.
        """
        if self.arrays is not None:
            self.arrays.say(tokens, says)
            return
        tokens = tokens.to(self.said)
        cover = covering(self.cover, self.table, self.said, tokens)
        said = torch.cat([tokens[:, None], self.said[:, :-1]], -1)
        if says is not None:
            cover, said = torch.where(says[:, None], cover, self.cover), torch.where(says[:, None], said, self.said)
        self.cover.copy_(cover)
        self.said.copy_(said)
