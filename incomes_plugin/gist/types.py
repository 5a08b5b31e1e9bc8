"""The gist of an edit, and the shape every gist of one model has. Made by capture, read by the pool."""

from __future__ import annotations

from dataclasses import dataclass

import torch

EditKey = tuple[str, int]
"""An edit version: edit id, version."""

_SCALE_BYTES = 2
"""Bytes of one row's scale (float16)."""


@dataclass(frozen=True)
class GistShape:
    """Shape all gists of one edit-capable model share.

    Attributes:
        feature_layers: decoder layers whose keys before rotary embedding are the features that routing compares,
            ascending; none above the first of `layers`.
        layers: decoder layers that read picked edits, ascending (L' = len(layers)).
        num_kv_heads: K.
        head_dim: D.
        key_dim, value_dim: numbers kept of a token's key and of its value in each layer and kv head.
    """

    feature_layers: tuple[int, ...]
    layers: tuple[int, ...]
    num_kv_heads: int
    head_dim: int
    key_dim: int
    value_dim: int

    @property
    def feature_dim(self) -> int:
        """F, numbers of one token's features."""
        return len(self.feature_layers) * self.num_kv_heads * self.head_dim

    @property
    def bytes_per_token(self) -> int:
        """Bytes that one token of an edit takes, scales included."""
        heads = len(self.layers) * self.num_kv_heads
        return self.feature_dim + _SCALE_BYTES + heads * (self.key_dim + self.value_dim + 2 * _SCALE_BYTES)


@dataclass(frozen=True)
class Packed:
    """Rows of numbers in 8 bits: `data * scale`, one scale for each row along the last dimension.

    Attributes:
        data: `[..., n]` int8.
        scale: `[...]` float16.
    """

    data: torch.Tensor
    scale: torch.Tensor

    @classmethod
    def of(cls, numbers: torch.Tensor) -> Packed:
        """Round `[..., n]` to 8 bits; the largest of each row keeps its size."""
        largest = numbers.float().abs().amax(-1)
        scale = (largest / 127).clamp(torch.finfo(torch.float16).tiny, torch.finfo(torch.float16).max).half()
        data = (numbers.float() / scale.float()[..., None]).round().clamp(-127, 127).to(torch.int8)
        return cls(data.cpu().contiguous(), scale.cpu().contiguous())

    def unpack(self, device: torch.device | None = None) -> torch.Tensor:
        """The numbers `[..., n]` in float32, on `device` if given."""
        data, scale = (self.data, self.scale) if device is None else (self.data.to(device), self.scale.to(device))
        return data.float() * scale.float()[..., None]

    @property
    def num_bytes(self) -> int:
        """Bytes of data and scales."""
        return self.data.nbytes + self.scale.nbytes


@dataclass(frozen=True)
class Gist:
    """One compressed edit version of E tokens.

    Attributes:
        edit_id: id of the edit, e.g. `edit_…`.
        version: version of the edit the gist was made from, >= 1.
        features: `[E, F]`, standardised keys of the feature layers before rotary embedding: what routing compares.
        keys: `[L', K, E, key_dim]`, at their rotary positions -E … -1, mapped by the adapter.
        values: `[L', K, E, value_dim]`, mapped by the adapter.
    """

    edit_id: str
    version: int
    features: Packed
    keys: Packed
    values: Packed

    @property
    def edit(self) -> EditKey:
        """Which edit version it is."""
        return self.edit_id, self.version

    @property
    def num_tokens(self) -> int:
        """E of this edit."""
        return int(self.features.data.shape[0])

    @property
    def num_bytes(self) -> int:
        """Bytes of features, keys and values."""
        return self.features.num_bytes + self.keys.num_bytes + self.values.num_bytes
