"""The selection layer in plain PyTorch: slow, obvious, float32. Every fast path is tested against it.

o = softmax(c_N * [q.k_0, q.k_1 ... q.k_n] / sqrt(D)) . [0, v_1 ... v_n]        (InComeS, arXiv 2505.22156, section 3)
"""

from __future__ import annotations

import math

import torch


def select(
    query: torch.Tensor, zero_key: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Soft choice of every token among the zero-gist and n gist entries.

    Args:
        query: `[T, H, D]` before rotary embedding, query map applied.
        zero_key: `[K, D]`.
        keys, values: `[n, K, D]`, n >= 0.
        scale: c_N.

    Returns:
        The addition to the self-attention output `[T, H, D]`, and the weights `[T, H, n + 1]`, zero-gist first.
    """
    heads_per_kv = query.shape[1] // zero_key.shape[0]
    all_keys = torch.cat([zero_key[None], keys]).repeat_interleave(heads_per_kv, dim=1)
    all_values = torch.cat([torch.zeros_like(zero_key)[None], values]).repeat_interleave(heads_per_kv, dim=1)
    logits = torch.einsum("thd,nhd->thn", query, all_keys) * (scale / math.sqrt(query.shape[-1]))
    weights = logits.softmax(dim=-1)
    return torch.einsum("thn,nhd->thd", weights, all_values), weights
