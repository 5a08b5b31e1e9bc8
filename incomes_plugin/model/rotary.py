"""Rotary embedding of queries outside the decoder, for adapters whose selection wants them rotated (the paper's)."""

from __future__ import annotations

import torch
from torch import nn
from transformers.models.llama.modeling_llama import rotate_half


def rotate(model: nn.Module, query: torch.Tensor, position: int = 0) -> torch.Tensor:
    """Queries `[B, T, H, D]` with the rotary embedding of positions `position …`, of a Llama-family decoder."""
    positions = torch.arange(position, position + query.shape[1], device=query.device)[None]
    cos, sin = model.get_submodule("model.rotary_emb")(query, positions)  # [1, T, D]
    return query * cos[:, :, None] + rotate_half(query) * sin[:, :, None]
