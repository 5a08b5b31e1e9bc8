"""The picks of all requests that read in a step, side by side; kept from step to step while the requests are the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from incomes_plugin.errors import SelectionFailed
from incomes_plugin.pool.picked import PickedEdit
from incomes_plugin.vllm.traces import Taken


@dataclass(eq=False)
class PickedTokens:
    """What one request reads, from its picks to its end.

    Attributes:
        picks: one edit or more.
        bias: `[E]` float32, b of reading, of each token of the picks.
        taken: what it took; None unless it is traced.
    """

    picks: Sequence[PickedEdit]
    bias: torch.Tensor
    taken: Taken | None

    @classmethod
    def of(cls, picks: Sequence[PickedEdit], bias: torch.Tensor, taken: Taken | None) -> PickedTokens:
        """From b of each edit, `[k]`."""
        counts = torch.tensor([pick.keys.shape[2] for pick in picks], device=bias.device)
        return cls(picks, bias.repeat_interleave(counts), taken)


class ReadBatch:
    """Picks of Q requests, padded to the longest; a pad has bias -inf.

    Args:
        requests: in the order of their rows.

    Attributes:
        keys: for each reading layer `[Q, K, key_dim, E]` float32: transposed, as the product with queries wants them.
        values: for each reading layer `[Q, K, E, value_dim]` float32.
        bias: `[Q, 1, 1, E]` float32.
        taken: `[Q, E]` float32, weights of the tokens since `flush`; None when no request is traced.
    """

    def __init__(self, requests: Sequence[PickedTokens]) -> None:
        if not requests:
            raise SelectionFailed("no request reads edits")
        self.requests = list(requests)
        like, width = requests[0].picks[0], max(len(request.bias) for request in requests)
        layers, kv_heads, _, key_dim = like.keys.shape
        keys = like.keys.new_zeros(layers, len(requests), kv_heads, width, key_dim, dtype=torch.float32)
        values = keys.new_zeros(*keys.shape[:4], like.values.shape[-1])
        self.bias = keys.new_full((len(requests), 1, 1, width), -torch.inf)
        for row, request in enumerate(requests):
            tokens = len(request.bias)
            keys[:, row, :, :tokens] = torch.cat([pick.keys for pick in request.picks], 2)
            values[:, row, :, :tokens] = torch.cat([pick.values for pick in request.picks], 2)
            self.bias[row, ..., :tokens] = request.bias
        self.keys, self.values = keys.transpose(-1, -2).unbind(), values.unbind()
        traced = any(request.taken is not None for request in requests)
        self.taken = keys.new_zeros(len(requests), width) if traced else None

    @torch.inference_mode()
    def flush(self) -> None:
        """Hand the weights over to the traced requests."""
        if self.taken is None:
            return
        for request, weights in zip(self.requests, self.taken, strict=True):
            if request.taken is not None:
                request.taken.weights += weights[: len(request.bias)]
        self.taken.zero_()
