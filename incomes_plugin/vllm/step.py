"""What one step of the engine has to do for its tagged rows; built once a step, read by every gist layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from incomes_plugin.pool.pages import PooledSnapshot
from incomes_plugin.selection.attention import Unrotation
from incomes_plugin.selection.routing import Picks

Rows = slice | torch.Tensor


@dataclass
class Trace:
    """Running attribution of one request.

    Attributes:
        snapshot: what the request reads (held until the trace is taken).
        weights: float32, zero-gist first, summed over generated tokens: `[n + 1]` of entries and gist layers with dense
            selection, `[N + 1]` of edits with a router.
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


@dataclass(frozen=True)
class Reading:
    """What the rows of one snapshot read that read anything; made at the first gist layer, the same in all.

    Attributes:
        picks: of these rows.
        among: `[A]`, their places among the rows of the snapshot.
        rows: `[A]`, their indices in the step.
        places: `[A, k, W]` int64, where the picked entries lie in the pool; W = most gists of an edit picked here.
        real: `[A, k, W]`, False for what is padding or not picked.
        unrotations: as those of `ReadRows`, of these rows.
    """

    picks: Picks
    among: torch.Tensor
    rows: torch.Tensor
    places: torch.Tensor
    real: torch.Tensor
    unrotations: dict[int, Unrotation]


@dataclass
class RoutedRows:
    """Rows of one snapshot in a step of a model with a router.

    Attributes:
        rows: their place among the rows of `ReadRows`.
        reading: set by the first gist layer; None where no row of the snapshot reads anything.
    """

    snapshot: PooledSnapshot
    rows: slice
    reading: Reading | None = None


@dataclass
class ReadRows:
    """Rows that read the pool, ordered by snapshot.

    Attributes:
        rows: a slice when they are consecutive in that order already (no gather), else their indices.
        unrotations: by id of the rotary module; the factor c_N of each row's snapshot is folded in.
        metadata: the backend's, one sequence per snapshot; None with a router.
        scratch: `[R, H, D]`, reused by every layer.
        routed: one for each snapshot with a router, else empty.
    """

    rows: Rows
    unrotations: dict[int, Unrotation]
    metadata: Any
    scratch: torch.Tensor
    routed: list[RoutedRows] = field(default_factory=list)
    traces: list[TracedRows] = field(default_factory=list)

    def of(self, step: torch.Tensor) -> torch.Tensor:
        """Their part `[R, ...]` of a tensor `[T, ...]` of the whole step."""
        return step[self.rows] if isinstance(self.rows, slice) else step.index_select(0, self.rows)


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
