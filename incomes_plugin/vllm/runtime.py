"""The selection runtime of one worker: it gives requests their picks, makes one plan per step, and serves the reading
layers.

Driven by a runner adapter (`rows.py`), entered by the first reading layer inside the attention op, changed by commits
between steps.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch

from incomes_plugin import telemetry
from incomes_plugin.errors import SelectionFailed
from incomes_plugin.figures import RoutingFigures
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.pool.gists import GistPool, PooledSnapshot
from incomes_plugin.selection.attention import Unrotation
from incomes_plugin.selection.picks import Picks, choose
from incomes_plugin.vllm.answers import answer_of
from incomes_plugin.vllm.batch import PickedTokens, ReadBatch
from incomes_plugin.vllm.captures import CaptureStore
from incomes_plugin.vllm.copies import CopyingLogits, StepCopies, follow
from incomes_plugin.vllm.kv_cache import AttentionLayer, CachedHeads
from incomes_plugin.vllm.layer import ReadingLayer
from incomes_plugin.vllm.leads import VerbatimLeads
from incomes_plugin.vllm.ranks import Ranks
from incomes_plugin.vllm.recalls import RecallRows, RecallVectors
from incomes_plugin.vllm.rows import RequestTag, RowSpan
from incomes_plugin.vllm.step import ReadRows, StepPlan, owners_of, step_rows
from incomes_plugin.vllm.traces import AnswerTrace, Choice, RequestTrace, StepTrace, Traces

FORCED_BIAS = 100.0
"""b of a forced pick, so large that every gate opens whatever the query is; see `RequestTag.force`."""


@dataclass(eq=False)
class _Request:
    """A request with edits, a capture, or a recall.

    Attributes:
        answer: which of the answers to its prompt.
        snapshot: held until the request has its picks.
        picked: None before routing.
        read_since_ns: when it was routed, of a request that is traced.
    """

    tag: RequestTag
    answer: int
    num_prompt_tokens: int
    snapshot: PooledSnapshot | None
    picked: PickedTokens | None = None
    read_since_ns: int = 0


class SelectionRuntime:
    """See the module docstring. Implements `rows.StepObserver`.

    Args:
        adapter: the model's edit adapter, on the device.
        layers: reading and feature layers by number.
        dtype: compute dtype.
        ranks: which of the heads this worker has.
        recalls: vectors of verbatim texts that are being said.
        logits: of the served model.

    Attributes:
        plan: of the running step; None outside a step and in steps without tagged rows.
        reading_layers: in the order of the adapter.
        figures: what routing has done so far.
    """

    def __init__(
        self,
        adapter: EditAdapter,
        layers: Mapping[int, AttentionLayer],
        dtype: torch.dtype,
        ranks: Ranks,
        recalls: RecallVectors,
        logits: CopyingLogits,
    ) -> None:
        self.adapter = adapter
        self.layers = layers
        self.dtype = dtype
        self.ranks = ranks
        self.recalls = recalls
        self.logits = logits
        self.plan: StepPlan | None = None
        self.captures = CaptureStore(adapter)
        self.leads = VerbatimLeads()
        self.num_steps = 0
        self.figures = RoutingFigures()
        reading = enumerate(adapter.shape.layers)
        heads = ranks.own(adapter.num_heads)
        self.reading_layers = [ReadingLayer(i, adapter.reader, layers[layer].rotary, heads) for i, layer in reading]
        self._rotaries = {id(layer.rotary): layer.rotary for layer in self.reading_layers}
        self._traces = Traces(len(self.reading_layers))
        self._requests: dict[str, _Request] = {}
        self._settled: set[str] = set()  # picked nothing: nothing is left to do for them
        self._batch: ReadBatch | None = None
        self._pool: GistPool | None = None
        self._cached: CachedHeads | None = None

    @property
    def device(self) -> torch.device:
        """Where the adapter lies."""
        return self.adapter.reader.zero_bias.device

    def bind(self, pool: GistPool, cached: CachedHeads) -> None:
        """Give the runtime its pool, once the KV cache exists."""
        self._pool, self._cached = pool, cached

    @property
    def pool(self) -> GistPool:
        """The pool. Raises SelectionFailed before `bind`."""
        if self._pool is None:
            raise SelectionFailed("the gist pool is not allocated")
        return self._pool

    @property
    def cached(self) -> CachedHeads:
        """The KV cache. Raises SelectionFailed before `bind`."""
        if self._cached is None:
            raise SelectionFailed("the KV cache is not allocated")
        return self._cached

    @property
    def tagged(self) -> Mapping[str, object]:
        """Requests whose rows the runner has to report, by id."""
        return self._requests

    @property
    def recalling(self) -> bool:
        """Whether vectors of a recall are here."""
        return len(self.recalls) > 0

    def add_request(self, request_id: str, extra_args: Mapping[str, Any] | None, num_prompt_tokens: int) -> None:
        """Resolve the request's pinned snapshot. Raises SelectionFailed when it is not resident."""
        tag = RequestTag.parse(extra_args)
        if tag is None or request_id in self._requests or request_id in self._settled:
            return
        snapshot = None if tag.snapshot is None else self.pool.acquire(tag.snapshot)
        self._requests[request_id] = _Request(tag, answer_of(request_id), num_prompt_tokens, snapshot)

    def remove_request(self, request_id: str) -> None:
        """Forget a request and let go of its snapshot."""
        self._settled.discard(request_id)
        gone = self._requests.pop(request_id, None)
        if gone is not None:
            self._let_go(gone)
            self.recalls.drop(gone.tag.recall or "")
            if gone.read_since_ns and gone.tag.traceparent:
                telemetry.record_span("edits.read", gone.tag.traceparent, gone.read_since_ns, time.time_ns())
        if not self._requests:
            self._batch = None

    def begin_step(
        self, spans: Sequence[RowSpan], positions: torch.Tensor, ids: torch.Tensor, num_requests: int
    ) -> None:
        """Plan the step."""
        reading: list[RowSpan] = []
        captures: list[tuple[RequestTag, int]] = []
        recalls: list[RecallRows] = []
        for span in spans:
            request = self._requests[span.request_id]
            if request.tag.recall is not None:
                if span.first_position < request.num_prompt_tokens:
                    recalls.append(self.recalls.rows(request.tag, span))
                continue
            if span.first_position + span.num_rows < request.num_prompt_tokens:
                continue  # the last prompt token is not in this step
            if request.tag.capture is None:
                reading.append(span)
            elif span.first_position < request.num_prompt_tokens:
                captures.append((request.tag, span.index))
        if reading or captures or recalls:
            self.plan = StepPlan(reading, captures, positions, ids, num_requests, recalls)
        else:
            self.plan = None
        self.num_steps += 1

    def enter(self, plan: StepPlan, block_table: torch.Tensor) -> None:
        """Called when the first reading layer has computed its attention: route the requests that have no picks yet,
        and gather the picks of those that read."""
        plan.block_table = block_table
        for span in plan.reading:
            request = self._requests[span.request_id]
            if request.picked is None:
                self._route(request, block_table[span.index])
                if request.picked is None:
                    self._settled.add(span.request_id)
                    del self._requests[span.request_id]
        plan.rows = self._read_rows([span for span in plan.reading if span.request_id in self._requests], plan)

    def check_step(self) -> None:
        """A step begins. Raises SelectionFailed if answers of the last one were made without what they copy."""
        self.logits.check_taken()

    def end_step(self, ran: bool) -> None:
        """Make the gists of captures that are complete now, keep what the rows took, leave what their logits need, and
        drop the plan."""
        plan, self.plan = self.plan, None
        if plan is not None and plan.rows is not None:
            if plan.rows.trace is not None:
                plan.rows.trace.finish()
            if ran:
                self.logits.leave(StepCopies(plan.rows.batch, plan.rows.logits, plan.num_requests))
        if plan is not None and plan.block_table is not None:
            for tag, index in plan.captures:
                self.captures.finish(tag, self.cached, plan.block_table[index])
                # A preempted capture is computed again and replaces its first gist.

    def take_trace(self, name: str, tokens: Mapping[Choice, int]) -> RequestTrace | None:
        """Attribution of finished requests; None when nothing was traced under `name`. See `Traces.take`."""
        return self._traces.take(name, tokens)

    def _route(self, request: _Request, pages: torch.Tensor) -> None:
        """Give a request its picks and release its snapshot. If it picks nothing, `picked` stays None."""
        snapshot, tag = request.snapshot, request.tag
        if snapshot is None or tag.question is None:
            raise SelectionFailed("a request without a snapshot or a question cannot be routed")
        start_s = time.perf_counter()
        with self._route_span(tag) as routing:
            features = self.cached.features(self.adapter, pages, torch.arange(*tag.question, device=pages.device))
            picks = self.ranks.decided(lambda: self._choose(snapshot, tag, features).on_host())
            if routing is not None:
                routing.set_attribute("incomes.picks", len(picks.edits))
                request.read_since_ns = time.time_ns()
        self.figures.observe(time.perf_counter() - start_s, len(picks.edits))
        if tag.probe:
            self.leads.add(tag, snapshot, picks)
            return self._let_go(request)
        edits = [self.pool.picked(snapshot, row) for row in picks.edits]
        trace = None
        if tag.trace is not None:
            trace = AnswerTrace.nothing_yet(edits)
            self._traces.add(tag.trace, tag.snapshot, (tag.prompt, request.answer), trace)
        if edits:
            request.picked = PickedTokens.of(edits, picks.bias.to(self.device), request.num_prompt_tokens, trace)
        self._let_go(request)

    def _route_span(self, tag: RequestTag) -> AbstractContextManager[Any]:
        """A span under the caller's, or nothing when nobody records it."""
        if tag.traceparent is None:
            return nullcontext()
        return telemetry.span("edits.route", context=telemetry.context_of(tag.traceparent))

    def _choose(self, snapshot: PooledSnapshot, tag: RequestTag, features: torch.Tensor) -> Picks:
        picking, table = self.adapter.picking, snapshot.table
        if tag.force:
            picking = replace(picking, rules=replace(picking.rules, threshold=-math.inf, rivalry=0.0))

        def may_read(row: int) -> bool:
            return self.pool.may_read(snapshot, row, tag.at_s) and (tag.probe or not table.gists[row].verbatim)

        picks = choose(picking, features, table.keys, table.features_of, table.age_of, may_read, tag.lines)
        return replace(picks, bias=torch.full_like(picks.bias, FORCED_BIAS)) if tag.force else picks

    def _let_go(self, request: _Request) -> None:
        if request.snapshot is not None:
            self.pool.release(request.snapshot)
            request.snapshot = None

    def _read_rows(self, spans: Sequence[RowSpan], plan: StepPlan) -> ReadRows | None:
        if not spans:
            return None
        reading = {id(picked): (picked, span) for picked, span in map(self._picked_of, spans)}
        picked = [picked for picked, _ in reading.values()]
        if self._batch is None:
            self._batch = ReadBatch(picked[0].picks[0])
        self._batch.set(picked)
        spans = [reading[id(picked)][1] for picked in self._batch.requests]
        pieces = [(span.first_row, span.num_rows) for span in spans]
        rows, owners = step_rows(pieces, self.device), owners_of(pieces, self.device)
        logits = step_rows([(span.index, 1) for span in spans], self.device)
        heads = self.reading_layers[0].num_heads
        read = ReadRows(self._batch, rows, owners, self._unrotations(plan.positions[rows]), logits, None, heads)
        follow(self._batch, spans, read.of(plan.ids))
        read.trace = self._trace(read, spans)
        return read

    def _picked_of(self, span: RowSpan) -> tuple[PickedTokens, RowSpan]:
        """What the request reads, and the rows of the span that read: from the last prompt token on."""
        request = self._requests[span.request_id]
        assert request.picked is not None
        skipped = request.num_prompt_tokens - 1 - span.first_position
        if skipped <= 0:
            return request.picked, span
        reading = replace(
            span,
            first_row=span.first_row + skipped,
            num_rows=span.num_rows - skipped,
            first_position=span.first_position + skipped,
        )
        return request.picked, reading

    def _trace(self, read: ReadRows, spans: Sequence[RowSpan]) -> StepTrace | None:
        """What is to be kept of what the rows take: those of `spans`, one for each request of the batch."""
        answers, row = [], 0
        for picked, span in zip(read.batch.requests, spans, strict=True):
            if picked.trace is not None:
                first = span.first_position - (self._requests[span.request_id].num_prompt_tokens - 1)
                answers.append((picked.trace, first, range(row, row + span.num_rows)))
            row += span.num_rows
        if not answers:
            return None
        edit_of = read.of_requests(read.batch.edit_of)
        return StepTrace(torch.zeros(edit_of.shape, device=self.device), edit_of, answers, self.ranks)

    def _unrotations(self, positions: torch.Tensor) -> dict[int, Unrotation]:
        return {
            key: Unrotation.of_rows(
                rotary.cos_sin_cache,
                positions,
                head_dim=self.adapter.shape.head_dim,
                neox=rotary.is_neox_style,
                dtype=self.dtype,
            )
            for key, rotary in self._rotaries.items()
        }
