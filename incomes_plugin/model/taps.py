"""Hooks on the gist layers of a Hugging Face decoder: read un-rotated queries, keys, values; add to the attention.

Works for every family whose attention has q_proj, k_proj, v_proj, o_proj (and optionally q_norm, k_norm): what leaves
the projection (or the norm) has not met the rotary embedding yet; what enters o_proj is the self-attention output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

Reader = Callable[[int, torch.Tensor], torch.Tensor | None]


class GistTaps:
    """Hooks for as long as the model lives.

    Attributes:
        reader: called with (index into the gist layers, query `[B, T, H, D]`); returns the addition to the
            self-attention output `[B, T, H, D]`, or None.
        keys, values: of the last forward pass, one `[B, T, K, D]` for each gist layer.
        queries: likewise `[B, T, H, D]`, un-rotated.
    """

    def __init__(self, model: nn.Module, layers: Sequence[int], head_dim: int) -> None:
        self.reader: Reader | None = None
        self.keys: list[torch.Tensor] = [torch.empty(0)] * len(layers)
        self.values: list[torch.Tensor] = [torch.empty(0)] * len(layers)
        self.queries: list[torch.Tensor] = [torch.empty(0)] * len(layers)
        self._head_dim = head_dim
        for index, layer in enumerate(layers):
            self._tap(index, model.get_submodule(f"model.layers.{layer}.self_attn"))

    def _tap(self, index: int, attention: nn.Module) -> None:
        def keep(into: list[torch.Tensor]) -> Callable[[nn.Module, object, torch.Tensor], None]:
            def hook(_module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
                into[index] = output.reshape(*output.shape[:2], -1, self._head_dim)

            return hook

        def add(_module: nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor] | None:
            addition = self.reader(index, self.queries[index]) if self.reader else None
            return None if addition is None else (inputs[0] + addition.flatten(-2).to(inputs[0].dtype),)

        # A norm over heads gets [B, T, H, D] as well, so both cases reshape alike.
        parts = dict(attention.named_children())
        parts.get("q_norm", parts["q_proj"]).register_forward_hook(keep(self.queries))
        parts.get("k_norm", parts["k_proj"]).register_forward_hook(keep(self.keys))
        parts["v_proj"].register_forward_hook(keep(self.values))
        parts["o_proj"].register_forward_pre_hook(add)
