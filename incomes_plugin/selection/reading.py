"""Reading: how much of the picked edits each head of a reading layer takes up, from the last prompt token on.

    o <- (1 - g) o_self + g o_edit
    o_edit = U softmax(q' k'_i / sqrt(D) + b_i) v'_i          over the tokens i of the picked edits
    g = sigmoid(logsumexp_i(...) - z . q - z_0)               z: the zero-gist

q is the query before rotary embedding (the query stands at position 0); q' = A_q q. An edit of E tokens is kept as
k'_i = A_k rot(k_i, i - E), the key at its place before the query, and v'_i = A_v v_i; both may be narrower than the
head, so that a gist stays small, and U brings a value back to the head's width. b_i is the verifier's log-probability
that the edit of token i applies. Every map belongs to one head and starts as a projection onto the base's own leading
directions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from incomes_plugin.gist.types import GistShape


class Reader(nn.Module):
    """Trained tensors of reading; see the module docstring.

    Args:
        shape: of the gists.
        num_heads: H.

    Attributes:
        query_map: `[L', H, D, key_dim]`, A_q.
        key_map: `[L', K, D, key_dim]`, A_k.
        value_map: `[L', K, D, value_dim]`, A_v.
        output_map: `[L', H, value_dim, D]`, U.
        zero_query: `[L', H, D]`, z.
        zero_bias: `[L', H]`, z_0.
    """

    def __init__(self, shape: GistShape, num_heads: int) -> None:
        super().__init__()
        layers, kv_heads, dim = len(shape.layers), shape.num_kv_heads, shape.head_dim
        key = torch.eye(dim)[:, : shape.key_dim].repeat(layers, kv_heads, 1, 1)
        value = torch.eye(dim)[:, : shape.value_dim].repeat(layers, kv_heads, 1, 1)
        groups = num_heads // kv_heads
        self.query_map = nn.Parameter(key.repeat_interleave(groups, 1).clone())
        self.key_map = nn.Parameter(key)
        self.value_map = nn.Parameter(value)
        self.output_map = nn.Parameter(value.transpose(-1, -2).repeat_interleave(groups, 1).clone())
        self.zero_query = nn.Parameter(torch.zeros(layers, num_heads, dim))
        self.zero_bias = nn.Parameter(torch.full((layers, num_heads), 2.0))

    def keep_keys(self, rotated: torch.Tensor) -> torch.Tensor:
        """k' `[..., L', K, E, key_dim]` from keys at their places `[..., L', K, E, D]`."""
        return rotated.float() @ self.key_map

    def keep_values(self, values: torch.Tensor) -> torch.Tensor:
        """v' `[..., L', K, E, value_dim]` from values `[..., L', K, E, D]`."""
        return values.float() @ self.value_map


@dataclass(frozen=True)
class Read:
    """What rows took up.

    Attributes:
        output: `[R, H, D]` float32, o_edit.
        gate: `[R, H]`, g.
        weights: `[R, H, E]`, of each token of the picks inside o_edit; they sum to 1.
    """

    output: torch.Tensor
    gate: torch.Tensor
    weights: torch.Tensor


def read(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    bias: torch.Tensor,
    query_map: torch.Tensor,
    output_map: torch.Tensor,
    zero_query: torch.Tensor,
    zero_bias: torch.Tensor,
) -> Read:
    """One layer's reading of R rows; see the module docstring.

    Args:
        query: `[R, H, D]` float32, before rotary embedding.
        keys: `[R, K, E, key_dim]`, k' of each row's picks.
        values: `[R, K, E, value_dim]`, v'.
        bias: `[R, E]` float32, b; -inf where there is no token. A row has one token at least.
        query_map, output_map, zero_query, zero_bias: one layer's of `Reader`.
    """
    rows, heads, dim = query.shape
    kv_heads = keys.shape[1]
    mapped = torch.einsum("rhd,hde->rhe", query, query_map) / math.sqrt(dim)
    grouped = mapped.view(rows, kv_heads, heads // kv_heads, -1)
    logits = (grouped @ keys.transpose(-1, -2).to(grouped.dtype)).flatten(1, 2) + bias[:, None]
    total = logits.logsumexp(-1)
    weights = (logits - total[..., None]).exp()
    taken = weights.view(rows, kv_heads, heads // kv_heads, -1) @ values.to(weights.dtype)
    output = torch.einsum("rhe,hed->rhd", taken.flatten(1, 2), output_map)
    gate = torch.sigmoid(total - torch.einsum("rhd,hd->rh", query, zero_query) - zero_bias)
    return Read(output, gate, weights)


def rotate_back(keys: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """Keys `[..., E, D]` at negative rotary positions, whose angles are those of `cosine` and `sine` turned back.

    Args:
        keys: before rotary embedding, halves rotated against each other (Llama's order).
        cosine, sine: `[E, D]`, tables of the positive positions E … 1.
    """
    half = keys.shape[-1] // 2
    swapped = torch.cat([-keys[..., half:], keys[..., :half]], -1)
    return keys * cosine - swapped * sine
