"""Routed selection inside a gist layer: pick edits at the first gist layer, read the picked ones at every gist layer.

Called by `layer.py` for models with a router, instead of the paged read of the whole pool. A step in which no row picks
an edit adds nothing at all.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from incomes_plugin.errors import SelectionFailed
from incomes_plugin.pool.routes import RouteTable
from incomes_plugin.selection.routing import Router, mass, pick, read
from incomes_plugin.vllm.step import ReadRows, RoutedRows, TracedRows

if TYPE_CHECKING:
    from incomes_plugin.vllm.layer import GistLayer


def choose(router: Router, reads: ReadRows, query: torch.Tensor) -> None:
    """Set the picks of every row, from the first gist layer's un-rotated queries `[R, H, D]`."""
    for group in reads.routed:
        table = _table(group)
        if not table.edits:
            continue
        picks = pick(router, query[group.rows], table.routes)
        active = picks.weights.any(dim=-1).nonzero()[:, 0]
        group.active = active
        group.picks = picks.of(active) if len(active) else None


def add_picked(layer: GistLayer, reads: ReadRows, mapped: torch.Tensor, output: torch.Tensor) -> None:
    """Add what the rows choose in a gist layer to `output` `[T, H, D]`, and to the traces of requests.

    Args:
        mapped: `[R, H, D]` float32, un-rotated queries with the query map applied.
    """
    assert layer.pool is not None
    assert layer.router is not None
    for group in reads.routed:
        weights = None
        if group.picks is not None and group.active is not None:
            slots = _table(group).slots[group.picks.edits]
            keys, values = layer.pool.entries(layer.index, group.snapshot, slots)
            rows = group.active + group.rows.start
            query = mapped[rows] * (layer.read_scale / math.sqrt(mapped.shape[-1]))
            real = (slots >= 0) & (group.picks.weights > 0)[..., None]
            recency = layer.router.recency[layer.index]
            added, log_weights = read(
                query, layer.zero_key, keys.float(), values.float(), real, recency, group.picks.rank
            )
            target = rows + reads.rows.start if isinstance(reads.rows, slice) else reads.rows[rows]
            output.index_add_(0, target, added.to(output.dtype))
            if reads.traces:
                weights = mass(log_weights, slots.shape[1])
        for trace in reads.traces:
            _attribute(trace, group, weights)


def _attribute(trace: TracedRows, group: RoutedRows, weights: torch.Tensor | None) -> None:
    """Add the weights `[A, k]` of the group's active rows; a row that picks nothing counts for the zero-gist."""
    if trace.trace.snapshot is not group.snapshot:
        return
    inside = trace.rows[(trace.rows >= group.rows.start) & (trace.rows < group.rows.stop)] - group.rows.start
    sums = torch.zeros(len(_table(group).edits) + 1, device=trace.rows.device)
    if weights is not None and group.picks is not None and group.active is not None:
        wanted = torch.isin(group.active, inside)
        sums.scatter_add_(0, group.picks.edits[wanted].flatten() + 1, weights[wanted].flatten())
    sums[0] = len(inside) - sums.sum()
    trace.add(sums)


def _table(group: RoutedRows) -> RouteTable:
    if group.snapshot.routes is None:
        raise SelectionFailed(f"snapshot {group.snapshot.id} has no routes")
    return group.snapshot.routes
