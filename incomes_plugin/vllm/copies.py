"""Copying in the engine: what answers have said, and the logits of rows whose requests copy.

A step that reads edits leaves `StepCopies` behind. The runner computes the logits of its requests next, one row a
request, with the model's `compute_logits`; there the rows of requests that copy become the mixture of
`selection/copying.py`. All other logits are vLLM's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import torch

from incomes_plugin.errors import SelectionFailed, UnsupportedEngine
from incomes_plugin.selection.copying import Copier, mixed
from incomes_plugin.vllm.batch import PickedTokens, ReadBatch
from incomes_plugin.vllm.rows import Rows, RowSpan


@dataclass(frozen=True)
class StepCopies:
    """Rows of the logits of one step that copy.

    Attributes:
        batch: what they copy from, and what their answers have said.
        rows: of the logits, in the order of the batch's slots: the places of the requests in the step.
        num_requests: of the step, with or without edits.
    """

    batch: ReadBatch
    rows: Rows
    num_requests: int

    def put_into(self, logits: torch.Tensor, hidden: torch.Tensor, copier: Copier) -> torch.Tensor:
        """Logits `[requests, V]` float32 with the mixture in these rows.

        Args:
            logits: `[requests, V]` of the base; written over if they are float32.
            hidden: `[requests, hidden]` behind the last norm.
        """
        batch, rows, logits = self.batch, self.rows, logits.float().contiguous()
        if batch.arrays is not None:
            batch.arrays.mix(logits, rows, copier, hidden[rows])
            return logits
        logits[rows] = mixed(logits[rows], batch.copied(hidden[rows], copier), batch.table[..., 0])
        return logits


class CopyingLogits:
    """`compute_logits` of the served model, which is wrapped here once.

    Args:
        model: vLLM's.

    Raises:
        UnsupportedEngine: a model without logits.
    """

    def __init__(self, model: Any, copier: Copier) -> None:
        if not hasattr(model, "compute_logits"):
            raise UnsupportedEngine(f"{type(model).__name__} computes no logits; serve a model that generates text")
        self._copier = copier
        self._left: StepCopies | None = None
        self._compute = model.compute_logits
        model.compute_logits = self.compute_logits

    def leave(self, copies: StepCopies) -> None:
        """For the next logits of a row a request."""
        self._left = copies

    def check_taken(self) -> None:
        """A step begins. Raises SelectionFailed if requests of the last one were answered without what they copy."""
        left, self._left = self._left, None
        if left is not None:
            raise SelectionFailed("the model runner sampled from other logits than compute_logits gave; nothing copied")

    def compute_logits(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor | None:
        """As vLLM; None on ranks that get no logits."""
        logits: torch.Tensor | None = self._compute(hidden_states, *args, **kwargs)
        left = self._left
        if left is None or len(hidden_states) != left.num_requests:
            return logits
        self._left = None
        return None if logits is None else left.put_into(logits, hidden_states, self._copier)


def follow(batch: ReadBatch, spans: Sequence[RowSpan], ids: torch.Tensor) -> None:
    """Bring what the answers of a batch have said up to a step.

    A preempted request computes rows again, whose logits nobody samples from: what it has said stays as it was until
    they go beyond the last token that it knows. So they may begin behind any cached prefix.

    Args:
        spans: rows that read, of each request of the batch, in the order of its slots.
        ids: `[R]`, the token of each of these rows.

    Raises:
        SelectionFailed: tokens between what was known and this step are missing.
    """
    new, row = [], 0
    for request, span in zip(batch.requests, spans, strict=True):
        new.append(_new_rows(request, span, row))
        row += span.num_rows
    for rows in zip_longest(*new):  # a request that has nothing new, or less than others, has None
        if None not in rows:
            batch.say(ids if len(rows) == len(ids) else ids[torch.tensor(rows, device=ids.device)], None)
            continue
        says = torch.tensor([row is not None for row in rows], device=ids.device)
        batch.say(ids[torch.tensor([row or 0 for row in rows], device=ids.device)], says)


def _new_rows(request: PickedTokens, span: RowSpan, row: int) -> range:
    """Rows of the tokens that an answer has said since it was followed last.

    Args:
        row: place of the span's first row.
    """
    last, known = span.first_position + span.num_rows - 1, request.said_at
    if known + 1 < span.first_position:
        raise SelectionFailed(f"the token at position {known + 1} of an answer that copies was never seen")
    request.said_at = max(known, last)
    first = row - span.first_position
    return range(first + known + 1, first + request.said_at + 1)
