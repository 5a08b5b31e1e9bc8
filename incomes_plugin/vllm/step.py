"""What one step of the engine has to do for its tagged rows; built once a step, read by every reading layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch

from incomes_plugin.selection.attention import Unrotation
from incomes_plugin.vllm.batch import ReadBatch
from incomes_plugin.vllm.recalls import RecallRows
from incomes_plugin.vllm.rows import RequestTag, Rows, RowSpan
from incomes_plugin.vllm.traces import StepTrace


@dataclass
class ReadRows:
    """Rows of a step that read edits.

    Attributes:
        rows: a slice when they follow each other, else their indices `[R]`.
        owners: `[R]`, request of each row in the batch; None when every request has one row.
        unrotations: of these rows, by id of the rotary module.
        logits: rows of the step's logits that these requests are answered from, in the order of the batch's slots.
        trace: of what they take; None when no request is traced.
        num_heads: H.
    """

    batch: ReadBatch
    rows: Rows
    owners: torch.Tensor | None
    unrotations: dict[int, Unrotation]
    logits: Rows
    trace: StepTrace | None
    num_heads: int

    def of(self, step: torch.Tensor) -> torch.Tensor:
        """Their part `[R, ...]` of a tensor `[T, ...]` of the whole step."""
        return step[self.rows] if isinstance(self.rows, slice) else step.index_select(0, self.rows)

    def of_requests(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor `[Q, ...]` of the batch for each row, `[R, ...]`."""
        return tensor if self.owners is None else tensor.index_select(0, self.owners)

    @cached_property
    def slots(self) -> np.ndarray:
        """`[R]` int64, the batch's slot of each row; on a CPU."""
        return np.arange(len(self.batch.requests)) if self.owners is None else self.owners.numpy()

    @cached_property
    def taken(self) -> np.ndarray:
        """`[R, H, W]`, zeros, for what each row takes of each token; see `cpu_kernels.read_rows`."""
        assert self.batch.arrays is not None
        return np.zeros((len(self.slots), self.num_heads, self.batch.arrays.bias.shape[1]), np.float32)

    def write(self, step: torch.Tensor, changed: torch.Tensor) -> None:
        """Put `[R, ...]` back into a tensor of the whole step."""
        if isinstance(self.rows, slice):
            step[self.rows] = changed
        else:
            step.index_copy_(0, self.rows, changed.to(step.dtype))


@dataclass
class StepPlan:
    """Everything the reading layers need in this step.

    Attributes:
        reading: spans with rows that read, if their request picks anything.
        captures: captures whose last prompt token is in this step, and their rows of the block table.
        positions, ids: of all rows of the step, and their tokens.
        num_requests: of the step.
        recalls: prompt rows of recalls, which get vectors.
        block_table: `[requests of the step, pages]`; set when the first reading layer is entered.
        rows: set likewise; None when nothing is read.
    """

    reading: Sequence[RowSpan]
    captures: Sequence[tuple[RequestTag, int]]
    positions: torch.Tensor
    ids: torch.Tensor
    num_requests: int
    recalls: Sequence[RecallRows] = ()
    block_table: torch.Tensor | None = None
    rows: ReadRows | None = field(default=None)


def step_rows(pieces: Sequence[tuple[int, int]], device: torch.device) -> Rows:
    """Rows of pieces `(first row, number of rows)`: a slice when they follow each other, else their indices."""
    end = pieces[0][0]
    for first, count in pieces:
        if first != end:
            return torch.cat([torch.arange(f, f + c) for f, c in pieces]).to(device)
        end += count
    return slice(pieces[0][0], end)


def owners_of(pieces: Sequence[tuple[int, int]], device: torch.device) -> torch.Tensor | None:
    """Piece of each row; None when every piece has one row."""
    counts = [count for _, count in pieces]
    if max(counts) == 1:
        return None
    return torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)).to(device)
