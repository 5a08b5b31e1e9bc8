"""The selection runtime of one worker: requests -> snapshots -> one plan per step -> the gist layers.

Driven by a runner adapter (`rows.py`), read by `layer.py` inside the attention op, changed by commits between steps.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from incomes_plugin.errors import SelectionFailed
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.pool.pages import GistPool, PooledSnapshot
from incomes_plugin.selection.attention import Unrotation
from incomes_plugin.selection.attribution import Attribution, by_edit
from incomes_plugin.vllm.captures import CaptureStore
from incomes_plugin.vllm.layer import GistLayer
from incomes_plugin.vllm.reader import PoolReader
from incomes_plugin.vllm.rows import RequestTag, RowSpan
from incomes_plugin.vllm.step import CaptureRows, ReadRows, RoutedRows, Rows, StepPlan, Trace, TracedRows

_MAX_TRACES = 256


@dataclass(frozen=True)
class HeadShape:
    """Heads of this worker's gist layers."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device


@dataclass
class _Tagged:
    tag: RequestTag
    snapshot: PooledSnapshot | None
    num_prompt_tokens: int


class SelectionRuntime:
    """See the module docstring. Implements `rows.StepObserver`.

    Attributes:
        plan: of the running step; None outside a step and in steps without tagged rows.
    """

    def __init__(self, adapter: EditAdapter, layers: list[GistLayer], heads: HeadShape) -> None:
        self.adapter = adapter
        self.layers = layers
        self.heads = heads
        self.plan: StepPlan | None = None
        shape = (len(layers), heads.num_kv_heads, heads.head_dim)
        self.captures = CaptureStore(shape, heads.dtype, adapter.keep)
        self.num_steps = 0
        self._tagged: dict[str, _Tagged] = {}
        self._traces: OrderedDict[str, Trace] = OrderedDict()
        self._pool: GistPool | None = None
        self._reader: PoolReader | None = None

    def bind(self, pool: GistPool, reader: PoolReader) -> None:
        """Give the runtime its pool, once the KV cache exists."""
        self._pool, self._reader = pool, reader
        for layer in self.layers:
            layer.reader, layer.pool = reader, pool
            layer.pages = reader.page_shape.view(pool.storage[layer.index])

    @property
    def pool(self) -> GistPool:
        """The pool. Raises SelectionFailed before `bind`."""
        if self._pool is None:
            raise SelectionFailed("the gist pool is not allocated")
        return self._pool

    @property
    def tagged(self) -> Mapping[str, object]:
        """Requests with edits or captures, by id."""
        return self._tagged

    def add_request(self, request_id: str, extra_args: Mapping[str, Any] | None, num_prompt_tokens: int) -> None:
        """Resolve the request's pinned snapshot. Raises SelectionFailed when it is not resident."""
        tag = RequestTag.parse(extra_args)
        if tag is None or request_id in self._tagged:
            return
        snapshot = None if tag.snapshot is None else self.pool.acquire(tag.snapshot)
        if tag.capture is not None:
            self.captures.open(tag.capture, tag.num_gists)
        self._tagged[request_id] = _Tagged(tag, snapshot, num_prompt_tokens)

    def remove_request(self, request_id: str) -> None:
        """Forget a request and let go of its snapshot."""
        gone = self._tagged.pop(request_id, None)
        if gone is not None and gone.snapshot is not None:
            self.pool.release(gone.snapshot)

    def begin_step(self, spans: Sequence[RowSpan], positions: torch.Tensor) -> None:
        """Plan the step."""
        reads = self._plan_reads([s for s in spans if self._tagged[s.request_id].snapshot is not None], positions)
        captures = self._plan_captures(spans, positions)
        self.plan = StepPlan(reads, captures) if reads or captures else None
        self.num_steps += 1

    def end_step(self) -> None:
        """Keep the captured rows and drop the plan."""
        plan, self.plan = self.plan, None
        if plan is not None and plan.captures is not None:
            self.captures.put(plan.captures)

    def take_trace(self, name: str) -> Attribution | None:
        """Attribution of a finished request; None when nothing was traced under `name`."""
        trace = self._traces.pop(name, None)
        if trace is None or not trace.count:
            return None
        routes = trace.snapshot.routes
        owners = self.pool.owners(trace.snapshot) if routes is None else (None, *routes.edits)
        attribution = by_edit((trace.weights / trace.count).tolist(), owners)
        self.pool.release(trace.snapshot)
        return attribution

    def _plan_reads(self, spans: Sequence[RowSpan], positions: torch.Tensor) -> ReadRows | None:
        if not spans:
            return None
        groups: dict[str, tuple[PooledSnapshot, list[RowSpan]]] = {}
        for span in spans:
            snapshot = self._tagged[span.request_id].snapshot
            assert snapshot is not None
            groups.setdefault(f"{snapshot.id}/{id(snapshot)}", (snapshot, []))[1].append(span)
        ordered = [span for _, members in groups.values() for span in members]
        snapshots = [snapshot for snapshot, _ in groups.values()]
        rows_of = [sum(span.num_rows for span in members) for _, members in groups.values()]
        rows = _rows(ordered, self.heads.device)
        shape = (sum(rows_of), self.heads.num_heads, self.heads.head_dim)
        if self._reader is None:
            raise SelectionFailed("the gist pool is not allocated")
        routed = self.adapter.router is not None
        return ReadRows(
            rows,
            self._unrotations(positions[rows], self._factors(snapshots, rows_of)),
            None if routed else self._reader.plan(snapshots, rows_of),
            torch.empty(shape, dtype=self.heads.dtype, device=self.heads.device),
            list(_routed(snapshots, rows_of)) if routed else [],
            list(self._traced(ordered)),
        )

    def _factors(self, snapshots: Sequence[PooledSnapshot], rows_of: Sequence[int]) -> torch.Tensor | float:
        """c_N of each row; one number when all rows share it. A router wants bare queries."""
        if self.adapter.router is not None:
            return 1.0
        factors = [self.adapter.scale(s.num_entries - 1) for s in snapshots]
        if len(factors) == 1:
            return factors[0]
        return torch.tensor(factors).repeat_interleave(torch.tensor(rows_of)).to(self.heads.device)

    def _unrotations(self, positions: torch.Tensor, factor: torch.Tensor | float) -> dict[int, Unrotation]:
        rotaries = {id(layer.rotary): layer.rotary for layer in self.layers}
        return {
            key: Unrotation.of_rows(
                rotary.cos_sin_cache,
                positions,
                factor,
                head_dim=self.heads.head_dim,
                neox=rotary.is_neox_style,
                dtype=self.heads.dtype,
            )
            for key, rotary in rotaries.items()
        }

    def _traced(self, spans: Sequence[RowSpan]) -> Iterator[TracedRows]:
        """Rows that produce a token: the last prompt row and every decode row of traced requests."""
        offset = 0
        for span in spans:
            request = self._tagged[span.request_id]
            first = max(span.first_position, request.num_prompt_tokens - 1)
            count = span.first_position + span.num_rows - first
            if request.tag.trace is not None and count > 0:
                rows = torch.arange(offset + span.num_rows - count, offset + span.num_rows, device=self.heads.device)
                yield TracedRows(self._trace(request.tag.trace, request.snapshot), rows, self.pool.read_keys)
            offset += span.num_rows

    def _trace(self, name: str, snapshot: PooledSnapshot | None) -> Trace:
        assert snapshot is not None
        if name not in self._traces:
            snapshot.holders += 1
            size = snapshot.num_entries if snapshot.routes is None else len(snapshot.routes.edits) + 1
            self._traces[name] = Trace(snapshot, torch.zeros(size, device=self.heads.device))
            while len(self._traces) > _MAX_TRACES:
                self.pool.release(self._traces.popitem(last=False)[1].snapshot)
        return self._traces[name]

    def _plan_captures(self, spans: Sequence[RowSpan], positions: torch.Tensor) -> CaptureRows | None:
        rows: list[int] = []
        targets: list[tuple[str, int]] = []
        for span in spans:
            request = self._tagged[span.request_id]
            if request.tag.capture is not None:
                first_gist = request.num_prompt_tokens - request.tag.num_gists
                for position in range(span.first_position, span.first_position + span.num_rows):
                    if first_gist <= position < request.num_prompt_tokens:
                        rows.append(span.first_row + position - span.first_position)
                        targets.append((request.tag.capture, position - first_gist))
        if not rows:
            return None
        index = torch.tensor(rows, device=self.heads.device)
        shape = (len(self.layers), len(rows), self.heads.num_kv_heads, self.heads.head_dim)
        keys = torch.empty(shape, device=self.heads.device)
        return CaptureRows(index, targets, self._unrotations(positions[index], 1.0), keys, torch.empty_like(keys))


def _routed(snapshots: Sequence[PooledSnapshot], rows_of: Sequence[int]) -> Iterator[RoutedRows]:
    start = 0
    for snapshot, count in zip(snapshots, rows_of, strict=True):
        yield RoutedRows(snapshot, slice(start, start + count))
        start += count


def _rows(spans: Sequence[RowSpan], device: torch.device) -> Rows:
    """The spans' rows: a slice when they follow each other, else an index tensor."""
    end = spans[0].first_row
    for span in spans:
        if span.first_row != end:
            break
        end += span.num_rows
    else:
        return slice(spans[0].first_row, end)
    return torch.cat([torch.arange(s.first_row, s.first_row + s.num_rows) for s in spans]).to(device)
