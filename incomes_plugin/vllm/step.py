"""What one step of the engine has to do for its tagged rows; built once a step, read by every gist layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from incomes_plugin.pool.pages import PooledSnapshot
from incomes_plugin.selection.attention import Unrotation

Rows = slice | torch.Tensor


@dataclass
class Trace:
    """Running attribution of one request.

    Attributes:
        snapshot: what the request reads (held until the trace is taken).
        weights: `[n + 1]` float32, summed over generated tokens and gist layers.
        count: terms in the sum.
    """

    snapshot: PooledSnapshot
    weights: torch.Tensor
    count: int = 0


@dataclass
class TracedRows:
    """Rows of a step whose selection weights are wanted.

    Attributes:
        rows: index among the rows of `ReadRows`.
    """

    trace: Trace
    rows: torch.Tensor
    keys_of: Callable[[int, PooledSnapshot], torch.Tensor]

    def read_keys(self, layer: int) -> torch.Tensor:
        """Keys `[n + 1, K, D]` of the traced snapshot in a gist layer."""
        return self.keys_of(layer, self.trace.snapshot)

    def add(self, weights: torch.Tensor) -> None:
        """Add the weights of one layer, summed over the rows."""
        self.trace.weights += weights
        self.trace.count += len(self.rows)


@dataclass
class ReadRows:
    """Rows that read the pool, ordered by snapshot.

    Attributes:
        rows: a slice when they are consecutive in that order already (no gather), else their indices.
        unrotations: by id of the rotary module; the factor c_N of each row's snapshot is folded in.
        metadata: the backend's, one sequence per snapshot.
        scratch: `[R, H, D]`, reused by every layer.
    """

    rows: Rows
    unrotations: dict[int, Unrotation]
    metadata: Any
    scratch: torch.Tensor
    traces: list[TracedRows] = field(default_factory=list)


@dataclass
class CaptureRows:
    """Rows that are gists of captured edits.

    Attributes:
        rows: their indices in the step.
        targets: for each row (capture id, index of the gist).
        keys, values: `[L', R, K, D]` float32, filled layer by layer.
    """

    rows: torch.Tensor
    targets: list[tuple[str, int]]
    unrotations: dict[int, Unrotation]
    keys: torch.Tensor
    values: torch.Tensor


@dataclass
class StepPlan:
    """Everything the gist layers need in this step."""

    reads: ReadRows | None
    captures: CaptureRows | None
