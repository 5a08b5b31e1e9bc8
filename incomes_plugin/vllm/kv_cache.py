"""Keys and values of any position, out of the engine's paged KV cache.

When this is called, all layers up to the running one have written the KV cache. It does not matter whether a position
was computed in this step, in an earlier one, or by another request whose blocks the prefix cache shares. Routing reads
a question's features from here, and capture everything that a gist is made of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from incomes_plugin.errors import UnsupportedEngine
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.pool.layout import PageLayout
from incomes_plugin.selection.attention import Unrotation
from incomes_plugin.vllm.ranks import Ranks


@dataclass(frozen=True)
class PageShape:
    """Shape of one page as the backend sees it, and the order of its dimensions in memory.

    Attributes:
        logical: `[K, S, 2D]`.
        order: dimensions of `logical`, outermost in memory first.
    """

    logical: tuple[int, ...]
    order: tuple[int, ...]

    @classmethod
    def of_cache(cls, attention: Any) -> PageShape:
        """The shape of the pages of a layer's KV cache.

        Raises:
            UnsupportedEngine: the cache is not `[pages, K, S, 2D]` with every page in one piece.
        """
        cache = attention.kv_cache
        expected = (attention.num_kv_heads, 2 * attention.head_size)
        if cache.ndim != 4 or (cache.shape[1], cache.shape[3]) != expected:
            raise UnsupportedEngine(f"KV cache {tuple(cache.shape)}, expected [pages, {expected[0]}, S, {expected[1]}]")
        page = cache[0]
        order = tuple(sorted(range(3), key=lambda dim: -page.stride(dim)))
        if not page.permute(order).is_contiguous():
            raise UnsupportedEngine("pages of the KV cache are not contiguous; set VLLM_KV_CACHE_LAYOUT=LBNHC")
        return cls(tuple(page.shape), order)

    def view(self, flat: torch.Tensor) -> torch.Tensor:
        """Pages `[P, numel]` in memory order as the backend wants them, `[P, *logical]`."""
        physical = [self.logical[dim] for dim in self.order]
        inverse = [self.order.index(dim) for dim in range(3)]
        return flat.view(-1, *physical).permute(0, *(dim + 1 for dim in inverse))


@dataclass(frozen=True)
class AttentionLayer:
    """A layer's attention and the rotary module in front of it."""

    attention: Any
    rotary: Any


class CachedHeads:
    """See the module docstring. Made once the KV cache exists.

    Args:
        layers: decoder layers by number; all of them have heads of the same shape.
        dtype: compute dtype, in which the engine applied the rotary embedding.
        ranks: that the heads are spread over.

    Raises:
        UnsupportedEngine: pages whose layout is not known or not the same in all layers.
    """

    def __init__(self, layers: Mapping[int, AttentionLayer], dtype: torch.dtype, ranks: Ranks) -> None:
        self._layers = layers
        self._dtype = dtype
        self._ranks = ranks
        shapes = {PageShape.of_cache(layer.attention) for layer in layers.values()}
        if len(shapes) != 1:
            raise UnsupportedEngine(f"pages of the KV cache differ between layers: {shapes}")
        self._layout = _probe(next(iter(layers.values())).attention, shapes.pop())

    def keys(self, layers: Sequence[int], pages: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Keys `[T, layers, K, D]` float32 of a request at `positions` `[T]`, before rotary embedding.

        Args:
            pages: the request's row of the block table.
        """
        unrotations: dict[int, Unrotation] = {}  # by rotary module, which layers share as a rule
        own = []
        for layer in layers:
            rotated, rotary = self._read(layer, pages, positions, self._layout.keys), self._layers[layer].rotary
            if id(rotary) not in unrotations:
                unrotations[id(rotary)] = Unrotation.of_rows(
                    rotary.cos_sin_cache, positions,
                    head_dim=rotated.shape[-1], neox=rotary.is_neox_style, dtype=self._dtype,
                )  # fmt: skip
            own.append(unrotations[id(rotary)](rotated))
        return self._ranks.gathered(torch.stack(own, 1), 2)

    def values(self, layers: Sequence[int], pages: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Values `[T, layers, K, D]` float32, likewise."""
        own = [self._read(layer, pages, positions, self._layout.values) for layer in layers]
        return self._ranks.gathered(torch.stack(own, 1), 2).float()

    def features(self, adapter: EditAdapter, pages: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Standardised features `[T, F]` float32 of a request at `positions`."""
        return adapter.standardise(self.keys(adapter.shape.feature_layers, pages, positions).flatten(1))

    def _read(self, layer: int, pages: torch.Tensor, positions: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        cache = self._layers[layer].attention.kv_cache
        flat = cache.as_strided(((len(cache) - 1) * cache.stride(0) + self._layout.page_numel,), (1,))
        size = self._layout.page_size
        starts = pages[positions // size].long() * cache.stride(0)
        return flat[starts[:, None, None] + offsets[positions % size]]


def _probe(attention: Any, shape: PageShape) -> PageLayout:
    """Let the backend write numbered entries, and look where each number went."""
    kv_heads, size, both = shape.logical
    dtype, device = attention.kv_cache.dtype, attention.kv_cache.device
    slots = torch.arange(size, dtype=torch.int64, device=device)

    def write_page(keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        flat = torch.zeros(1, kv_heads * size * both, dtype=dtype, device=device)
        attention.impl.do_kv_cache_update(attention, keys.to(dtype), values.to(dtype), shape.view(flat), slots)
        return flat[0].float()

    return PageLayout.probe(write_page, (size, kv_heads, both // 2), device)
