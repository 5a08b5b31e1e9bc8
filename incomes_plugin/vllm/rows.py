"""Which rows of a step belong to which request: the interface between a vLLM model runner and the selection runtime.

A runner adapter (`rows_v1.py`, `rows_v2.py`) exports `install(runner, runtime)`, called once after the KV cache exists.
From then on, on every real step and never on a dummy or profiling step, it must

1. call `runtime.add_request(id, extra_args, num_prompt_tokens)` before the first step of a request (again after a
   preemption that removed it: the call is idempotent) and `runtime.remove_request(id)` when the runner forgets it;
2. call `runtime.check_step()` first thing in every step, also of an empty one;
3. call `runtime.begin_step(spans, positions, ids, num_requests)` after the inputs of the step are laid out and before
   the forward pass. `spans` names the rows of tagged requests only (`request_id in runtime.tagged`), ascending and
   disjoint; `positions` and `ids` hold the token position of every row of the step
   (`positions[span.first_row] == span.first_position`) and its token; `num_requests` are in the step, tagged or not;
4. call `runtime.end_step(ran)` after the forward pass in a `finally`: a later dummy batch never sees stale rows.
   After a pass that `ran` to its end, the runner's next call of the model's `compute_logits` has a row for each request
   of the step, in their order, that of its last token.

`runtime.tagged` is empty when no request of the runner reads edits or is a capture: skip 3 and 4 then, at no cost.
Errors of all these calls (`SelectionFailed`) must reach vLLM: no step may finish without its edits.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch

KEY_PREFIX = "incomes_"

Rows = slice | torch.Tensor
"""Rows of a tensor: a slice when they follow each other, else their indices."""


@dataclass(frozen=True, slots=True)
class RequestTag:
    """What `pin.py` writes into `SamplingParams.extra_args`, and engine core and worker read back.

    Attributes:
        snapshot: id of the pinned snapshot, or None (captures read no pool).
        question: first position of the question in the prompt, and the one behind its last.
        read_salt: secret of the request; part of the hash of KV blocks that depend on edits (`blocks.py`).
        trace: id under which weights are collected, or None.
        traceparent: span of the caller's request that the engine's spans belong under, or None when nobody records it.
        prompt: which of the prompts of the caller's request it is.
        probe: the request finds out which verbatim edit leads its picks, and reads nothing.
        at_s: unix second at which the request came; edits that end by then are not read.
        force: the canary's: picks are read in full, whatever verifier and gate say.
        recall: id under which the vectors lie that this prompt's placeholders stand for, or None.
        capture: id under which the gist of this prompt is kept, or None.
        first, count: positions of the captured text, or the first one of the vectors, in the prompt.
        lines: places in the question at which a further line begins.
    """

    snapshot: str | None = None
    question: tuple[int, int] | None = None
    read_salt: str | None = None
    trace: str | None = None
    traceparent: str | None = None
    prompt: int = 0
    probe: bool = False
    at_s: int = 0
    force: bool = False
    recall: str | None = None
    capture: str | None = None
    first: int = 0
    count: int = 0
    lines: tuple[int, ...] = ()

    def to_extra_args(self) -> dict[str, Any]:
        """Flat entries for `extra_args`; absent fields are left out."""
        return {KEY_PREFIX + key: value for key, value in asdict(self).items() if value}

    @classmethod
    def parse(cls, extra_args: Mapping[str, Any] | None) -> RequestTag | None:
        """The tag of a request, or None for a request that neither reads a pool nor captures."""
        if not extra_args:
            return None
        fields = {k.removeprefix(KEY_PREFIX): v for k, v in extra_args.items() if k.startswith(KEY_PREFIX)}
        if "question" in fields:
            start, end = fields["question"]  # a list after its way to another process
            fields["question"] = (start, end)
            fields["lines"] = tuple(fields.get("lines", ()))
        return cls(**fields) if fields else None


@dataclass(frozen=True, slots=True)
class RowSpan:
    """Consecutive rows of one tagged request in this step.

    Attributes:
        index: place of the request among all requests of the step: its row in the block table.
        first_row: index of the first row in the step's flattened batch.
        num_rows: tokens of the request scheduled in this step.
        first_position: position of the first row in the request's sequence (= tokens computed before this step).
    """

    request_id: str
    index: int
    first_row: int
    num_rows: int
    first_position: int


class StepObserver(Protocol):
    """The selection runtime as a runner adapter sees it."""

    @property
    def tagged(self) -> Container[str]:
        """Ids of the requests whose rows the runtime wants to know; false when there are none."""
        ...

    @property
    def recalling(self) -> bool:
        """Whether a step may have to run on embeddings (`recalls.py`), in place of a graph that holds the model."""
        ...

    def add_request(self, request_id: str, extra_args: Mapping[str, Any] | None, num_prompt_tokens: int) -> None:
        """See the module docstring. Raises SelectionFailed when the pinned snapshot is not resident."""
        ...

    def remove_request(self, request_id: str) -> None:
        """Forget a request; unknown ids are ignored."""
        ...

    def check_step(self) -> None:
        """A step begins. Raises SelectionFailed if the last one has not taken what it had to copy."""
        ...

    def begin_step(
        self, spans: Sequence[RowSpan], positions: torch.Tensor, ids: torch.Tensor, num_requests: int
    ) -> None:
        """Plan the selection of this step."""
        ...

    def end_step(self, ran: bool) -> None:
        """Drop the plan; safe to call twice."""
        ...
