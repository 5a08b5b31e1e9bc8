"""Read gist pages with the attention backend of the engine itself: a second, non-causal instance of a layer's impl.

in: the loaded gist layers and their KV cache; out: the pool's storage in the backend's layout, and per step the
backend's own metadata, in which every snapshot is one sequence whose queries are all rows that pinned it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.v1.attention.backend import AttentionType, CommonAttentionMetadata

from incomes_plugin.errors import UnsupportedEngine
from incomes_plugin.pool.layout import PageLayout
from incomes_plugin.pool.pages import PooledSnapshot


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
        """The shape of the pages of a layer's bound KV cache.

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


class PoolReader:
    """One backend instance for all gist layers (they share heads and head size).

    Attributes:
        page_shape: see `PageShape`.
        layout: found by letting the backend write numbered entries.
    """

    def __init__(self, vllm_config: VllmConfig, attention: Any, device: torch.device) -> None:
        self.page_shape = PageShape.of_cache(attention)
        self._attention = attention
        self._device = device
        backend = attention.attn_backend
        with set_current_vllm_config(vllm_config):
            self._impl = backend.get_impl_cls()(
                attention.num_heads,
                attention.head_size,
                1.0 / math.sqrt(attention.head_size),
                attention.num_kv_heads,
                None,
                None,
                "auto",
                None,
                AttentionType.DECODER,
                None,
            )
            spec = dataclasses.replace(attention.get_kv_cache_spec(vllm_config), block_size=self.page_shape.logical[1])
            self._builder = backend.get_builder_cls()(spec, [attention.layer_name], vllm_config, device)
        self.layout = self._probe(attention.dtype)

    def plan(self, snapshots: Sequence[PooledSnapshot], rows_of: Sequence[int]) -> Any:
        """Metadata for a step in which `rows_of[i]` consecutive queries read `snapshots[i]`."""
        starts = torch.tensor([0, *rows_of], dtype=torch.int32).cumsum(0, dtype=torch.int32)
        lengths = torch.tensor([s.num_entries for s in snapshots], dtype=torch.int32)
        widest = max(len(s.block_table) for s in snapshots)
        if len(snapshots) == 1:
            table = snapshots[0].block_table[None]
        else:
            table = torch.zeros(len(snapshots), widest, dtype=torch.int32, device=self._device)
            for row, snapshot in zip(table, snapshots, strict=True):
                row[: len(snapshot.block_table)] = snapshot.block_table
        num_rows = int(starts[-1])
        return self._builder.build(
            0,
            CommonAttentionMetadata(
                query_start_loc=starts.to(self._device, non_blocking=True),
                query_start_loc_cpu=starts,
                seq_lens=lengths.to(self._device, non_blocking=True),
                num_reqs=len(snapshots),
                num_actual_tokens=num_rows,
                max_query_len=max(rows_of),
                max_seq_len=int(lengths.max()),
                block_table_tensor=table,
                slot_mapping=torch.empty(0, dtype=torch.int64, device=self._device),
                causal=False,
                seq_lens_cpu_upper_bound=lengths,
            ),
        )

    def read(self, query: torch.Tensor, pages: torch.Tensor, metadata: Any, output: torch.Tensor) -> None:
        """softmax([q.k_0 .. q.k_n] / sqrt(D)) . [0, v_1 .. v_n] for each row, `[R, H, D]`, into `output`."""
        self._impl.forward(self._attention, query, None, None, pages, metadata, output=output)

    def _probe(self, dtype: torch.dtype) -> PageLayout:
        kv_heads, size, both = self.page_shape.logical
        slots = torch.arange(size, dtype=torch.int64, device=self._device)

        def write_page(keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
            flat = torch.zeros(1, kv_heads * size * both, dtype=dtype, device=self._device)
            pages = self.page_shape.view(flat)
            self._impl.do_kv_cache_update(self._attention, keys.to(dtype), values.to(dtype), pages, slots)
            return flat[0].float()

        return PageLayout.probe(write_page, (size, kv_heads, both // 2), self._device)
