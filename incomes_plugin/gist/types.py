"""The gist of an edit, and the shape every gist of one model has. Made by capture, read by the pool."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class GistShape:
    """Shape all gists of one edit-capable model share.

    Attributes:
        layers: indices of the gist layers in the decoder, ascending (upper half; L' = len(layers)).
        max_gists: largest G of one edit; an edit's G is chosen by its token count, 1..max_gists.
        num_kv_heads: K.
        head_dim: D.
    """

    layers: tuple[int, ...]
    max_gists: int
    num_kv_heads: int
    head_dim: int

    def bytes_per_gist(self, dtype: torch.dtype) -> int:
        """Bytes of one gist token's keys and values over all gist layers."""
        return 2 * len(self.layers) * self.num_kv_heads * self.head_dim * dtype.itemsize


@dataclass(frozen=True)
class Gist:
    """One compressed edit version.

    Attributes:
        edit_id: id of the edit, e.g. `edit_…`.
        version: version of the edit the gist was made from, >= 1.
        keys: `[L', G, K, D]` before rotary embedding (after k_norm where the model has one).
        values: `[L', G, K, D]`.
    """

    edit_id: str
    version: int
    keys: torch.Tensor
    values: torch.Tensor

    @property
    def num_gists(self) -> int:
        """G of this edit."""
        return int(self.keys.shape[1])

    @property
    def num_bytes(self) -> int:
        """Bytes of keys and values."""
        return self.keys.nbytes + self.values.nbytes
