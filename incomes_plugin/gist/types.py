"""The gist of an edit, and the shape that all gists of one model have. The engine makes gists, the pool reads them."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from incomes_plugin.gist.edit import EditKey
from incomes_plugin.gist.spelling import BYTES, Spelling

_SCALE_BYTES = 2
"""Bytes of the scale that each row of numbers in 8 bits has (float16)."""

SPELLED_PER_TOKEN = 2.5
"""Tokens of a spelling for each token of an edit, where only the number of the edit's tokens is known. It depends on
the tokenizer and the text: 1 where no word is written otherwise without the space in front of it."""


@dataclass(frozen=True)
class GistShape:
    """Shape all gists of one edit-capable model share.

    Attributes:
        feature_layers: decoder layers whose keys before rotary embedding are the features that routing compares,
            ascending; none above the first of `layers`.
        layers: decoder layers that read picked edits, ascending (L' = len(layers)).
        num_kv_heads: K.
        head_dim: D.
        latent_dim: R, numbers kept of a token's keys and values in all reading layers together (`selection/codec.py`).
    """

    feature_layers: tuple[int, ...]
    layers: tuple[int, ...]
    num_kv_heads: int
    head_dim: int
    latent_dim: int

    @property
    def feature_dim(self) -> int:
        """F, numbers of one token's features."""
        return len(self.feature_layers) * self.num_kv_heads * self.head_dim

    @property
    def bytes_per_token(self) -> int:
        """Bytes of one token's features and latents, scales included."""
        return self.feature_dim + self.latent_dim + 2 * _SCALE_BYTES

    @property
    def room_per_token(self) -> int:
        """Bytes to count for one token of an edit whose spelling is not known: the same, and its part of that."""
        return self.bytes_per_token + round(SPELLED_PER_TOKEN * BYTES)

    @property
    def read_dim(self) -> int:
        """N, numbers of one token's keys and values in all reading layers."""
        return 2 * len(self.layers) * self.num_kv_heads * self.head_dim


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
        """Round `[..., n]` to 8 bits; each row's scale is such that its largest number is hit exactly."""
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
        latents: `[E, R]`, its keys before rotary embedding and its values, encoded by the adapter's codec.
        verbatim: what is stored under the edit is answered to the byte; the gist serves to find it and is never read.
        spelling: of S tokens, by which answers may say pieces of the edit's text.
    """

    edit_id: str
    version: int
    features: Packed
    latents: Packed
    verbatim: bool = False
    spelling: Spelling = field(default_factory=lambda: Spelling.of([]))

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
        """Bytes of features, latents and spelling."""
        return self.features.num_bytes + self.latents.num_bytes + self.spelling.num_bytes


def spelling_fits(spelling: Spelling, num_tokens: int) -> bool:
    """Whether all places are tokens of an edit of `num_tokens` tokens, and all links are to tokens further up."""
    places, links = spelling.places, spelling.links
    earlier = links < torch.arange(len(links))
    inside = (places >= 0) & (places < num_tokens) & (links >= -1)
    return bool((earlier & inside & (spelling.tokens >= 0)).all())
