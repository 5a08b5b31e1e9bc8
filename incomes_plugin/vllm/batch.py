"""The picks of all requests that read in a step, side by side. Only what has changed since the last step is copied."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from incomes_plugin.gist.spelling import SPELLED
from incomes_plugin.pool.picked import PickedEdit
from incomes_plugin.vllm.traces import AnswerTrace

NOTHING = -2
"""What goes before a pad: no token, and not -1, which is what an answer has said that has said nothing."""


@dataclass(eq=False)
class PickedTokens:
    """What one request reads and copies, from its picks to its end.

    Attributes:
        picks: one edit or more.
        bias: `[E]` float32, b of reading, of each token of the picks.
        edit_of: `[E]` int64, which of the picks a token belongs to.
        copy_bias: `[S]` float32, the same b of each token of their spellings.
        answer_at: position of the answer's first token.
        said_at: position of the last token that `said` knows.
        said: `[3]` int64, the last tokens that the answer has said, the latest first; -1 for nothing. While the request
            is in a batch, the batch has them.
        trace: collects its attribution; None if nobody asked for it.
    """

    picks: Sequence[PickedEdit]
    bias: torch.Tensor
    edit_of: torch.Tensor
    copy_bias: torch.Tensor
    answer_at: int
    said_at: int
    said: torch.Tensor
    trace: AnswerTrace | None

    @classmethod
    def of(
        cls, picks: Sequence[PickedEdit], bias: torch.Tensor, num_prompt_tokens: int, trace: AnswerTrace | None
    ) -> PickedTokens:
        """The tokens of these picks; `bias` has b of each edit, `[k]`."""
        counts = torch.tensor([pick.keys.shape[2] for pick in picks], device=bias.device)
        spelled = torch.tensor([len(pick.tokens) for pick in picks], device=bias.device)
        edit_of = torch.arange(len(picks), device=bias.device).repeat_interleave(counts)
        said = torch.full((SPELLED,), -1, device=bias.device)
        read_bias, copy_bias = bias.repeat_interleave(counts), bias.repeat_interleave(spelled)
        return cls(picks, read_bias, edit_of, copy_bias, num_prompt_tokens, num_prompt_tokens - 1, said, trace)


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
        tokens: `[Q, S]` int64; 0 for a pad.
        before: `[Q, S, 3]` int64.
        said: `[Q, 3]` int64; `copies.follow` brings it up to each step.
    """

    keys: Sequence[torch.Tensor]
    values: Sequence[torch.Tensor]
    bias: torch.Tensor
    edit_of: torch.Tensor
    copy_keys: torch.Tensor
    copy_bias: torch.Tensor
    tokens: torch.Tensor
    before: torch.Tensor
    said: torch.Tensor

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
        self._tokens = self._edit_of.new_zeros(0, 0)
        self._before = self._edit_of.new_zeros(0, 0, SPELLED)
        self._said = self._edit_of.new_zeros(0, SPELLED)

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
        self.requests[slot].said = self._said[slot].clone()
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
        self._tokens[slot, :spelled] = torch.cat([pick.tokens for pick in request.picks])
        self._tokens[slot, spelled:] = 0
        self._before[slot, :spelled] = torch.cat([pick.before for pick in request.picks])
        self._before[slot, spelled:] = NOTHING
        self._said[slot] = request.said
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
        self._tokens = self._tokens.new_zeros(count, spelled)
        self._before = self._before.new_full((count, spelled, SPELLED), NOTHING)
        self._said = self._said.new_full((count, SPELLED), -1)
        for (part, _, _), (new, dim, tokens) in zip(old, self._parts(), strict=True):
            new.narrow(dim, 0, have).narrow(tokens, 0, part.shape[tokens]).copy_(part)

    def _parts(self) -> Iterator[tuple[torch.Tensor, int, int]]:
        """All tensors, with their dimensions of slots and of tokens."""
        yield from ((self._keys, 1, -2), (self._values, 1, -2), (self._bias, 0, 1), (self._edit_of, 0, 1))
        yield from ((self._copy_keys, 0, 1), (self._copy_bias, 0, 1), (self._tokens, 0, 1), (self._before, 0, 1))
        yield (self._said, 0, 1)

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
        self.tokens = self._tokens[:count, :spelled]
        self.before = self._before[:count, :spelled]
        self.said = self._said[:count]
