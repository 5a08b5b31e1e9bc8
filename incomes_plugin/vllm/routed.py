"""Routed selection inside a gist layer: pick edits at the first gist layer, read the picked ones at every gist layer.

Called by `layer.py` for models with a router, instead of the paged read of the whole pool. A step in which no row picks
an edit adds nothing at all.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from incomes_plugin.errors import SelectionFailed
from incomes_plugin.pool.pages import GistPool
from incomes_plugin.pool.routes import RouteTable
from incomes_plugin.selection.routing import Router, pick, read
from incomes_plugin.vllm.step import ReadRows, RoutedRows, TracedRows


def choose(router: Router, reads: ReadRows, query: torch.Tensor) -> None:
    """Set the picks of every row, from the first gist layer's un-rotated queries `[R, H, D]`."""
    for group in reads.routed:
        table = _table(group)
        if not table.edits:
            continue
        picks = pick(router, query[group.rows], table.routes)
        for trace in reads.traces:
            _attribute(trace, group, picks.edits, picks.weights, len(table.edits))
        active = picks.weights.any(dim=-1).nonzero()[:, 0]
        group.active = active
        group.picks = replace(
            picks, edits=picks.edits[active], weights=picks.weights[active], none=picks.none[active]
        ) if len(active) else None  # fmt: skip


def add_picked(pool: GistPool, layer: int, reads: ReadRows, mapped: torch.Tensor, output: torch.Tensor) -> None:
    """Add what the rows read in gist layer `layer` to `output` `[T, H, D]`.

    Args:
        mapped: `[R, H, D]` float32, un-rotated queries with the query map and the read scale applied.
    """
    for group in reads.routed:
        if group.picks is None or group.active is None:
            continue
        slots = _table(group).slots[group.picks.edits]
        keys, values = pool.entries(layer, group.snapshot, slots)
        rows = group.active + group.rows.start
        query = mapped[rows] / math.sqrt(mapped.shape[-1])
        added = read(query, keys.float(), values.float(), slots >= 0, group.picks.weights)
        target = rows + reads.rows.start if isinstance(reads.rows, slice) else reads.rows[rows]
        output.index_add_(0, target, added.to(output.dtype))


def _attribute(
    trace: TracedRows, group: RoutedRows, edits: torch.Tensor, weights: torch.Tensor, num_edits: int
) -> None:
    if trace.trace.snapshot is not group.snapshot:
        return
    rows = trace.rows - group.rows.start
    inside = rows[(rows >= 0) & (rows < len(edits))]
    sums = torch.zeros(num_edits + 1, device=weights.device)
    sums.scatter_add_(0, edits[inside].flatten() + 1, weights[inside].flatten())
    sums[0] = len(inside) - sums.sum()
    trace.add(sums)


def _table(group: RoutedRows) -> RouteTable:
    if group.snapshot.routes is None:
        raise SelectionFailed(f"snapshot {group.snapshot.id} has no routes")
    return group.snapshot.routes
