"""Reading: each head of a reading layer mixes attention to the picked edits into its output, from the last prompt token
on.

    o <- (1 - g) o_self + g o_edit
    o_edit = U softmax(q' k_i / sqrt(D) + b_i) v_i            over the tokens i of the picked edits
    g = sigmoid(logsumexp_i(...) - z . q - z_0)               z: the zero-gist

q is the query and k_i the key of a picked edit's token, both before rotary embedding. So a key carries no position; the
order of an edit's words is only in what lower layers have mixed into
it. q' = A_q q. v_i is the value, and U turns a mix of values. b_i is the verifier's
log-probability that the edit of token i applies. Every map belongs to one head and starts as the identity.
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
        query_map: `[L', H, D, D]`, A_q.
        output_map: `[L', H, D, D]`, U.
        zero_query: `[L', H, D]`, z.
        zero_bias: `[L', H]`, z_0.
    """

    def __init__(self, shape: GistShape, num_heads: int) -> None:
        super().__init__()
        layers, dim = len(shape.layers), shape.head_dim
        self.query_map = nn.Parameter(torch.eye(dim).repeat(layers, num_heads, 1, 1))
        self.output_map = nn.Parameter(torch.eye(dim).repeat(layers, num_heads, 1, 1))
        self.zero_query = nn.Parameter(torch.zeros(layers, num_heads, dim))
        self.zero_bias = nn.Parameter(torch.full((layers, num_heads), 2.0))


@dataclass(frozen=True)
class Read:
    """What some rows have read.

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
        keys: `[R, K, E, D]`, k of each row's picks.
        values: `[R, K, E, D]`, v.
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
