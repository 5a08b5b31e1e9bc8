"""Causal self-attention for training: on CPU float32 inside bfloat16 autocast, elsewhere torch's own kernels.

Torch 2.13's bfloat16 flash kernel for CPU takes 8 times as long as the float32 one on short sequences (121 against
15 ms for forward and backward of `[96, 4, 48, 64]`), so the step casts around it. Padding is on the right and needs no
mask.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AttentionInterface

NAME = "incomes_causal_float32"


def _attend(
    _module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _mask: torch.Tensor | None,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """`query [B, H, T, D]`, `key`, `value [B, K, T, D]` -> `[B, T, H, D]`, no weights."""
    if query.device.type != "cpu":
        query, key = query.to(value.dtype), key.to(value.dtype)  # the rotary embedding may have raised them
        out = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        return out.transpose(1, 2), None
    groups = query.shape[1] // key.shape[1]
    with torch.autocast(query.device.type, enabled=False):
        out = F.scaled_dot_product_attention(
            query.float(),
            key.float().repeat_interleave(groups, dim=1),
            value.float().repeat_interleave(groups, dim=1),
            is_causal=True,
        )
    return out.to(query.dtype).transpose(1, 2), None


def register() -> str:
    """Make the function known to transformers; returns the name for `set_attn_implementation`."""
    AttentionInterface.register(NAME, _attend)
    return NAME
