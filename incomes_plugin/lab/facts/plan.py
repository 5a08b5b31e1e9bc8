"""Do N edits fit, and what does routing among them take? Arithmetic on an adapter's shape, and one measurement.

    host      the gists of all edits, and the objects that hold them
    device    the route keys of all edits, in rows of 16 tokens; their arena has an eighth to spare; without a GPU also
              the index that many edits have
    routing   one product of the question's tokens with all route keys, a maximum for each edit, the best few

Without a GPU the device is the host. Nothing else grows with N: a request reads a few picks, however many edits there
are.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import psutil
import torch

from incomes_plugin.errors import PoolFull
from incomes_plugin.lab.facts.theory import largest_that
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.pool.gists import MOVING
from incomes_plugin.pool.indexing import INDEX_FROM_EDITS
from incomes_plugin.pool.table import ROW_TOKENS, with_spare
from incomes_plugin.selection.routing import RouteKeys, similarities
from incomes_plugin.selection.rules import RoutingRules

OBJECT_BYTES = 4096
"""What Python takes for an edit in the pool: its gist of six tensors (3.7 KB measured), its places in lists."""

QUESTION_TOKENS = 16
"""Of the question that routing is timed with."""

_LONG_ENOUGH_S = 2.0
_MOST_RUNS = 5
"""Routing is timed this often, and the quickest run counts: the others were disturbed by other work on the machine."""


@dataclass(frozen=True)
class EditCost:
    """What one edit of a sample takes, on average.

    Attributes:
        tokens: of its text.
        gist_bytes: features and latents in 8 bits, with scales, and a spelling of ordinary size.
        rows: of route keys.
        row_bytes: of one such row.
        index_bytes_per_token: of the index: a byte for each number of a route key, and the token's number.
    """

    tokens: float
    gist_bytes: float
    rows: float
    row_bytes: int
    index_bytes_per_token: int

    @classmethod
    def of(cls, adapter: EditAdapter, lengths: Sequence[int], dtype: torch.dtype = torch.bfloat16) -> EditCost:
        """The mean over edits of these lengths in tokens.

        Args:
            dtype: of the route keys, which is bfloat16 if the engine computes in that, else float32.
        """
        tokens = fmean(lengths)
        rows = fmean(-(-length // ROW_TOKENS) for length in lengths)
        width = adapter.router.key.out_features
        row_bytes = ROW_TOKENS * width * dtype.itemsize
        return cls(tokens, tokens * adapter.shape.room_per_token, rows, row_bytes, width + torch.int64.itemsize)


@dataclass(frozen=True)
class Needs:
    """What N edits take.

    Attributes:
        edits: N.
        gist_bytes, object_bytes: on the host.
        route_rows: rows of route keys.
        route_bytes: of these rows.
        device_bytes: of the arena that holds them, with an eighth to spare.
        index_bytes: of the index that names edits on a CPU, where there are enough of them.
    """

    edits: int
    gist_bytes: int
    object_bytes: int
    route_rows: int
    route_bytes: int
    device_bytes: int
    index_bytes: int

    @classmethod
    def of(cls, edits: int, cost: EditCost) -> Needs:
        """Of N edits like those of a sample."""
        rows = max(1, round(edits * cost.rows))
        arena = with_spare(rows) * cost.row_bytes
        gists = round(edits * cost.gist_bytes)
        index = round(edits * cost.tokens * cost.index_bytes_per_token) if edits >= INDEX_FROM_EDITS else 0
        return cls(edits, gists, edits * OBJECT_BYTES, rows, rows * cost.row_bytes, arena, index)

    @property
    def host_bytes(self) -> int:
        """Memory of the host."""
        return self.gist_bytes + self.object_bytes

    @property
    def pool_bytes(self) -> int:
        """What admission counts: the least `pool_bytes` that a server needs for them."""
        return self.gist_bytes + round(MOVING * self.route_bytes)


@dataclass(frozen=True)
class FreeMemory:
    """What there is.

    Attributes:
        host_bytes: for gists.
        device_bytes: for route keys; None = the device is the host.
    """

    host_bytes: int
    device_bytes: int | None

    @classmethod
    def of_machine(cls) -> FreeMemory:
        """What is free now; a served base takes its own share of it."""
        free = torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else None
        return cls(psutil.virtual_memory().available, free)

    def holds(self, needs: Needs) -> bool:
        """Whether it all fits."""
        if self.device_bytes is None:
            return needs.host_bytes + needs.device_bytes + needs.index_bytes <= self.host_bytes
        return needs.host_bytes <= self.host_bytes and needs.device_bytes <= self.device_bytes

    def most_edits(self, cost: EditCost) -> int:
        """How many edits fit; 0 if not even one does."""
        if not self.holds(Needs.of(1, cost)):
            return 0
        return largest_that(lambda edits: self.holds(Needs.of(edits, cost)))


def refuse_what_does_not_fit(needs: Needs, memory: FreeMemory, cost: EditCost) -> None:
    """Raise PoolFull where N edits need more memory than there is; names both and how many would fit."""
    if memory.holds(needs):
        return
    device = "" if memory.device_bytes is None else f" and {readable(memory.device_bytes)} on the device"
    raise PoolFull(
        f"{needs.edits:,} edits need {readable(needs.host_bytes)} on the host and {readable(needs.device_bytes)} for "
        f"route keys; there are {readable(memory.host_bytes)}{device}, enough for {memory.most_edits(cost):,} edits: "
        "take fewer or shorter edits, or more memory", param="edits",
    )  # fmt: skip


@dataclass(frozen=True)
class Routing:
    """What routing takes of a request.

    Attributes:
        ms: milliseconds of the clock; scaled where fewer rows were measured than there are.
        cpu_ms: of processor time, over all threads: less than `ms` where the machine is busy with something else.
        rows, measured_rows: of route keys.
        threads: of the processor.
    """

    ms: float
    cpu_ms: float
    rows: int
    measured_rows: int
    threads: int


def measure_routing(needs: Needs, cost: EditCost, spare_bytes: int, tokens: int = QUESTION_TOKENS) -> Routing:
    """Time the routing of one question among N edits, on the device that would serve, with made-up route keys.

    Args:
        spare_bytes: of memory for it; where all route keys do not fit, fewer are taken.
        tokens: of the question.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bytes_a_row = cost.row_bytes + 4 * tokens * ROW_TOKENS
    rows = max(1, min(needs.route_rows, spare_bytes // bytes_a_row))
    edits = max(1, needs.edits * rows // needs.route_rows)
    width = cost.row_bytes // ROW_TOKENS // torch.bfloat16.itemsize
    keys = torch.full((rows, ROW_TOKENS, width), width**-0.5, dtype=torch.bfloat16, device=device)
    table = RouteKeys(keys, (torch.arange(rows, device=device) * edits) // rows, edits)
    directions = torch.full((tokens, width), width**-0.5, device=device)
    runs = [_seconds(directions, table)]
    while len(runs) < _MOST_RUNS and sum(clock for clock, _ in runs) < _LONG_ENOUGH_S:
        runs.append(_seconds(directions, table))
    clock_ms, cpu_ms = (1000 * spent * needs.route_rows / rows for spent in min(runs))
    return Routing(clock_ms, cpu_ms, needs.route_rows, rows, torch.get_num_threads())


@torch.inference_mode()
def _seconds(directions: torch.Tensor, table: RouteKeys) -> tuple[float, float]:
    """Of the clock, and of the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    similar = similarities(directions, table)
    similar.sum(0).topk(min(RoutingRules.candidates, table.num_edits)).indices.tolist()
    return time.perf_counter() - clock, time.process_time() - processor


def readable(num_bytes: float) -> str:
    """`1.5 GiB`."""
    for unit in ("bytes", "KiB", "MiB"):
        if num_bytes < 1024:
            return f"{num_bytes:,.0f} {unit}" if unit == "bytes" else f"{num_bytes:,.1f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:,.1f} GiB"
