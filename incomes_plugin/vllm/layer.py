"""One gist layer: what happens inside the opaque attention op, between self-attention and output projection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from incomes_plugin.errors import SelectionFailed
from incomes_plugin.pool.pages import GistPool
from incomes_plugin.selection.attention import map_heads
from incomes_plugin.selection.attribution import selection_weights
from incomes_plugin.selection.routing import Router
from incomes_plugin.vllm.reader import PoolReader
from incomes_plugin.vllm.routed import add_picked, choose
from incomes_plugin.vllm.step import CaptureRows, ReadRows, StepPlan


@dataclass
class GistLayer:
    """Weights and pages of one gist layer.

    Attributes:
        index: 0..L'-1 among the gist layers.
        rotary: the layer's rotary module, shared between layers or not.
        query_map, key_map, value_map: `[H or K, D, D]` float32, or None.
        zero_key: `[K, D]` float32.
        router: of a model with routed selection, on the device.
        read_scale: with a router, the factor of the logits inside a picked edit.
        reader, pages, pool: bound once the KV cache exists; pages `[P, *page shape]`.
    """

    index: int
    rotary: Any
    query_map: torch.Tensor | None
    key_map: torch.Tensor | None
    value_map: torch.Tensor | None
    zero_key: torch.Tensor
    router: Router | None = None
    read_scale: float = 1.0
    reader: PoolReader | None = None
    pages: torch.Tensor | None = None
    pool: GistPool | None = None

    def apply(self, plan: StepPlan, query: torch.Tensor, key: Any, value: Any, output: torch.Tensor) -> None:
        """Add the selection to `output` `[T, H, D]` and keep the gists of captures. `query`, `key` are rotated."""
        if plan.captures is not None:
            self._capture(plan.captures, key, value)
        if plan.reads is not None:
            self._read(plan.reads, query, output)

    def _read(self, reads: ReadRows, query: torch.Tensor, output: torch.Tensor) -> None:
        if self.reader is None or self.pages is None or self.pool is None:
            raise SelectionFailed("the gist pool is not allocated")
        if self.router is not None:
            if self.index == 0:
                choose(self, self.router, reads, query)
            add_picked(self, self.router, reads, query, output)
            return
        rows = reads.rows
        mapped = map_heads(reads.unrotations[id(self.rotary)](reads.of(query)), self.query_map)
        selected = reads.scratch
        queries = torch.empty_like(selected).copy_(mapped)  # cast and lay out in one pass
        self.reader.read(queries, self.pages, reads.metadata, selected)
        if isinstance(rows, slice):
            output[rows] += selected
        else:
            output.index_add_(0, rows, selected)
        for trace in reads.traces:
            keys = trace.read_keys(self.index)
            trace.add(selection_weights(mapped.index_select(0, trace.rows), keys))

    def _capture(self, captures: CaptureRows, key: Any, value: Any) -> None:
        if key is None or value is None:
            raise SelectionFailed("the engine's attention gets no key and value; turn its fused rope-KV pass off")
        keys = captures.unrotations[id(self.rotary)](key.index_select(0, captures.rows))
        captures.keys[self.index] = map_heads(keys, self.key_map)
        values = value.index_select(0, captures.rows).float()
        captures.values[self.index] = map_heads(values, self.value_map)
