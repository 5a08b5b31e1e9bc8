"""Routed selection inside a gist layer: pick edits at the first gist layer, read the picked ones at every gist layer.

Called by `layer.py` for models with a router, instead of the paged read of the whole pool. What the layers share is
worked out once a step; after the first gist layer a row that picks nothing costs nothing.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from incomes_plugin.errors import SelectionFailed
from incomes_plugin.pool.pages import GistPool
from incomes_plugin.pool.routes import RouteTable
from incomes_plugin.selection.attention import Unrotation, map_heads
from incomes_plugin.selection.routing import Router, mass, pick, read
from incomes_plugin.vllm.step import Reading, ReadRows, RoutedRows, TracedRows

if TYPE_CHECKING:
    from incomes_plugin.vllm.layer import GistLayer

_GATHERED_NUMBERS = {"cpu": 1 << 20}
"""Numbers gathered at once, by device type: on a CPU what its cache holds."""

_MOST_GATHERED = 1 << 26
"""The same on any other device."""


def choose(layer: GistLayer, router: Router, reads: ReadRows, query: torch.Tensor) -> None:
    """Set what every row reads, from the first gist layer's rotated queries `[T, H, D]`."""
    assert layer.pool is not None
    unrotated = reads.unrotations[id(layer.rotary)](reads.of(query))
    for group in reads.routed:
        if _table(group).edits:
            group.reading = _reading(layer.pool, router, reads, group, unrotated[group.rows])


def add_picked(layer: GistLayer, router: Router, reads: ReadRows, query: torch.Tensor, output: torch.Tensor) -> None:
    """Add what the rows choose in a gist layer to `output` `[T, H, D]`, and to the traces of requests."""
    for group in reads.routed:
        weights = None
        if group.reading is not None:
            log_weights = _add(layer, router, group.reading, query, output)
            if reads.traces:
                weights = torch.cat([mass(part, group.reading.places.shape[1]) for part in log_weights])
        for trace in reads.traces:
            _attribute(trace, group, weights)


def _reading(
    pool: GistPool, router: Router, reads: ReadRows, group: RoutedRows, unrotated: torch.Tensor
) -> Reading | None:
    table = _table(group)
    routes = table.routes
    picks = pick(router, unrotated, routes)
    if table.memory is not None and routes.preselection is None:
        table.memory.tally.exact += len(unrotated)
    slots = table.slots[picks.edits]
    real = (slots >= 0) & (picks.weights > 0)[..., None]
    reading = real[..., 0].any(dim=-1)
    wanted = torch.stack([reading.sum(), real.flatten(0, 1).any(dim=0).sum()])
    count, width = wanted.tolist()  # a step's only wait for the device
    if not count:
        return None
    among = torch.nonzero_static(reading, size=count)[:, 0]
    rows = among + group.rows.start
    return Reading(
        picks.of(among),
        among,
        rows + reads.rows.start if isinstance(reads.rows, slice) else reads.rows[rows],
        pool.places(group.snapshot, slots[among, :, :width]),
        real[among, :, :width],
        {name: _part(unrotation, rows) for name, unrotation in reads.unrotations.items()},
    )


def _part(unrotation: Unrotation, rows: torch.Tensor) -> Unrotation:
    return replace(unrotation, cosine=unrotation.cosine[rows], sine=unrotation.sine[rows])


def _add(
    layer: GistLayer, router: Router, reading: Reading, query: torch.Tensor, output: torch.Tensor
) -> list[torch.Tensor]:
    """Add what the rows read, as many rows at a time as may be gathered; their log weights `[A, H, 1 + k * W]`."""
    assert layer.pool is not None
    unrotated = reading.unrotations[id(layer.rotary)](query.index_select(0, reading.rows))
    mapped = map_heads(unrotated, layer.query_map) * (layer.read_scale / math.sqrt(query.shape[-1]))
    numbers = 2 * layer.zero_key.numel() * reading.places[0].numel()
    step = max(1, _GATHERED_NUMBERS.get(query.device.type, _MOST_GATHERED) // numbers)
    found = []
    for start in range(0, len(reading.rows), step):
        part = slice(start, start + step)
        keys, values = layer.pool.entries(layer.index, reading.places[part])
        added, log_weights = read(
            mapped[part], layer.zero_key, keys, values, reading.real[part],
            reading.picks.bias[part],
        )  # fmt: skip
        output.index_add_(0, reading.rows[part], added.to(output.dtype))
        found.append(log_weights)
    return found


def _attribute(trace: TracedRows, group: RoutedRows, weights: torch.Tensor | None) -> None:
    """Add the weights `[A, k]` of the group's reading rows; a row that picks nothing counts for the zero-gist."""
    if trace.trace.snapshot is not group.snapshot:
        return
    inside = trace.rows[(trace.rows >= group.rows.start) & (trace.rows < group.rows.stop)] - group.rows.start
    sums = torch.zeros(len(_table(group).edits) + 1, device=trace.rows.device)
    if weights is not None and group.reading is not None:
        wanted = torch.isin(group.reading.among, inside)
        sums.scatter_add_(0, group.reading.picks.edits[wanted].flatten() + 1, weights[wanted].flatten())
    sums[0] = len(inside) - sums.sum()
    trace.add(sums)


def _table(group: RoutedRows) -> RouteTable:
    if group.snapshot.routes is None:
        raise SelectionFailed(f"snapshot {group.snapshot.id} has no routes")
    return group.snapshot.routes
