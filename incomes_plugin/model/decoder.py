"""A Hugging Face decoder run layer by layer, in plain PyTorch: what the reference model and the lab compute with.

Works for decoders of Llama's shape (Llama, Mistral, Qwen2, Qwen3). The model's own modules do the arithmetic; this file
calls them one after the other, so that a caller sees queries, keys and values before the rotary embedding, can start
and stop at any layer, and can change the output of attention. Attention is computed without a fused kernel: nothing
here is tuned for long prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from incomes_plugin.errors import UnsupportedEngine

SHAPES = ("llama", "mistral", "qwen2", "qwen3")
"""Model types whose decoder layers have the modules that this file names."""


@dataclass(frozen=True)
class Heads:
    """What one layer's attention computed, before rotary embedding (after the norms over heads where there are any).

    Attributes:
        query: `[B, T, H, D]`.
        key, value: `[B, T, K, D]`.
    """

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor


ReadHook = Callable[[int, torch.Tensor, torch.Tensor], torch.Tensor]
"""(layer, query `[B, T, H, D]` before rotary embedding, self-attention output `[B, T, H, D]`) -> output to use."""

LayerHook = Callable[[int, Heads], None]


@dataclass(frozen=True)
class Past:
    """Keys and values of earlier positions, before rotary embedding: one pair `[B or 1, P, K, D]` for each layer that
    is run.

    Attributes:
        mask: `[B, P]` bool, True for real positions; None = all.
        positions: `[B or 1, P]` int64.
    """

    keys: Sequence[torch.Tensor]
    values: Sequence[torch.Tensor]
    positions: torch.Tensor
    mask: torch.Tensor | None = None


class Decoder:
    """See the module docstring.

    Args:
        model: a causal LM in eval mode.

    Raises:
        UnsupportedEngine: another shape of decoder.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        config = model.config.get_text_config()
        if config.model_type not in SHAPES:
            raise UnsupportedEngine(
                f"model type {config.model_type!r}: edits are trained for {', '.join(SHAPES)}; take a base of these"
            )
        if getattr(config, "use_sliding_window", False) or (
            config.model_type == "mistral" and getattr(config, "sliding_window", None)
        ):
            raise UnsupportedEngine("edits are not supported with sliding-window attention; take another base")
        self.model = model
        self.num_heads = int(config.num_attention_heads)
        self.num_kv_heads = int(config.num_key_value_heads)
        self.head_dim = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
        self.hidden_size = int(config.hidden_size)
        self.layers: Sequence[Any] = model.get_submodule("model.layers")  # type: ignore[assignment]

    @property
    def num_layers(self) -> int:
        """Decoder layers."""
        return len(self.layers)

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Hidden states `[B, T, hidden]` in front of the first layer."""
        return self.model.get_input_embeddings()(ids)

    def rotary(self, positions: torch.Tensor, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines `[B, T, D]` of positions `[B, T]`."""
        return self.model.get_submodule("model.rotary_emb")(like, positions)

    def run(
        self,
        hidden: torch.Tensor,
        first: int,
        last: int,
        *,
        positions: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
        past: Past | None = None,
        on_layer: LayerHook | None = None,
        read: ReadHook | None = None,
    ) -> torch.Tensor:
        """Hidden states `[B, T, hidden]` after layers `first` … `last - 1`.

        Args:
            positions: `[B, T]` int64, 0 … T - 1 by default.
            mask: `[B, T]` bool, False for padding, which stands at the end.
            past: keys and values of exactly these layers, at positions before those of every row.
            on_layer: called with the heads of each layer.
            read: called with each layer's attention output, which it may replace.
        """
        batch, length = hidden.shape[:2]
        if positions is None:
            positions = torch.arange(length, device=hidden.device).expand(batch, length)
        cosine, sine = self.rotary(positions, hidden)
        allowed = torch.ones(length, length, dtype=torch.bool, device=hidden.device).tril()[None, None]
        if mask is not None:
            allowed = allowed & mask[:, None, None]
        if past is not None:
            width = past.positions.shape[1]
            before = (
                past.mask if past.mask is not None else torch.ones(1, width, dtype=torch.bool, device=hidden.device)
            )
            shape = (max(batch, len(allowed)), 1, length)
            front = before[:, None, None].expand(shape[0], 1, length, width)
            allowed = torch.cat([front, allowed.expand(*shape, length)], -1)
            past_rotary = self.rotary(past.positions, hidden)
        for index in range(first, last):
            layer = self.layers[index]
            normed = layer.input_layernorm(hidden)
            heads = self.heads(index, normed)
            if on_layer is not None:
                on_layer(index, heads)
            query, key, value = rotate(heads.query, cosine, sine), rotate(heads.key, cosine, sine), heads.value
            if past is not None:
                old = past.keys[index - first], past.values[index - first]
                key = torch.cat([rotate(old[0], *past_rotary).expand(batch, -1, -1, -1), key], 1)
                value = torch.cat([old[1].expand(batch, -1, -1, -1), value], 1)
            output = attend(query, key, value, allowed)
            if read is not None:
                output = read(index, heads.query, output)
            hidden = hidden + layer.self_attn.o_proj(output.flatten(-2).to(hidden.dtype))
            hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        return hidden

    def heads(self, index: int, normed: torch.Tensor) -> Heads:
        """Queries, keys and values of a layer, from its normed input `[B, T, hidden]`."""
        attention = self.layers[index].self_attn
        query, key, value = (
            project(normed).unflatten(-1, (-1, self.head_dim))
            for project in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        if hasattr(attention, "q_norm"):
            query, key = attention.q_norm(query), attention.k_norm(key)
        return Heads(query, key, value)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits `[..., V]` of hidden states `[..., hidden]` behind the last layer."""
        return self.unembed(self.normed(hidden))

    def normed(self, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden states behind the last norm."""
        return self.model.get_submodule("model.norm")(hidden)

    def unembed(self, normed: torch.Tensor) -> torch.Tensor:
        """Logits `[..., V]` of hidden states behind the last norm."""
        return self.model.get_output_embeddings()(normed)


def rotate(heads: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """Rotary embedding of `[B, T, heads, D]` by tables `[B, T, D]`; halves are rotated against each other."""
    half = heads.shape[-1] // 2
    swapped = torch.cat([-heads[..., half:], heads[..., :half]], -1)
    return heads * cosine[:, :, None].to(heads.dtype) + swapped * sine[:, :, None].to(heads.dtype)


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
    """Attention output `[B, T, H, D]` of queries, shaped alike; keys `[B, S, K, D]`, mask `[B or 1, 1, T, S]`."""
    groups = query.shape[2] // key.shape[2]
    key, value = (part.transpose(1, 2).repeat_interleave(groups, 1) for part in (key, value))
    return F.scaled_dot_product_attention(query.transpose(1, 2), key, value, attn_mask=allowed).transpose(1, 2)
