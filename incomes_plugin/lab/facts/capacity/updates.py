"""Thousands of inserts and deletes, one at a time, against a batch solve of what is left; what was deleted abstains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from incomes_plugin.lab.facts.capacity.experiment import Claim, Curve, Experiment, Measurement, Plot, Table
from incomes_plugin.lab.facts.capacity.linear import on_sphere
from incomes_plugin.lab.facts.memories import RecursiveMemory, decide, reference, threshold_at, unit_codes

UNRELATED = 4000
FALSE_FIRES = 0.005
LARGEST_ERROR = 1e-4
_LOOKS = 10


@dataclass(frozen=True)
class UpdatesJob:
    """Inserts, then deletes in random order; `dtype` of the state, `block` facts an update."""

    width: int
    inserts: int
    deletes: int
    dtype: str
    block: int
    seed: int = 0


@dataclass(frozen=True)
class UpdatesResult:
    """What was found.

    Attributes:
        error: |W - W batch| / |W batch|, after all updates.
        drift: the same against the rebuild, at ten moments of the deletes.
        kept_recall: of the facts that were left, share that comes back above the threshold.
        deleted_abstain: of the deleted ones, share that scores below it.
        unrelated_fire: of new unrelated keys, share that scores above it.
        recalled_before_delete: of the deleted ones, share that came back before, among all.
    """

    error: float
    drift: list[float]
    kept_recall: float
    deleted_abstain: float
    unrelated_fire: float
    recalled_before_delete: float


UpdatesCell = Measurement[UpdatesJob, UpdatesResult]


class Updates(Experiment[UpdatesJob, UpdatesResult]):
    """Recursive least squares over a long life."""

    name = "updates"
    title = "Inserts and deletes by recursive least squares"
    job_type = UpdatesJob
    result_type = UpdatesResult

    def jobs(self, *, quick: bool) -> list[UpdatesJob]:
        """10,000 inserts and 5,000 deletes in float32 and float64, one fact at a time and in blocks."""
        if quick:
            return [UpdatesJob(64, 200, 100, "float64", 1)]
        sizes = (("float64", 64, 768), ("float32", 64, 768), ("float64", 1, 768))
        return [UpdatesJob(width, 10_000, 5_000, dtype, block) for dtype, block, width in sizes]

    def measure(self, job: UpdatesJob) -> UpdatesResult:
        """Run it."""
        generator = torch.Generator().manual_seed(job.seed)
        ids = [f"fact-{place}" for place in range(job.inserts)]
        keys, codes = on_sphere(job.inserts, job.width, generator), unit_codes(ids, job.width)
        memory = RecursiveMemory(job.width, job.width, dtype=getattr(torch, job.dtype))
        for part in torch.arange(job.inserts).split(job.block):
            memory.insert([ids[place] for place in part], keys[part], codes[part])
        order = torch.randperm(job.inserts, generator=generator)
        gone, kept = order[: job.deletes], order[job.deletes :].sort().values
        before = decide(memory(keys[gone]), codes).best == gone
        drift = [drift for part in gone.chunk(_LOOKS) for drift in [_deleted(memory, ids, part, job.block)]]
        solved = reference.ridge(keys[kept], codes[kept], memory.penalty)
        error = float((memory.matrix.double() - solved).norm() / solved.norm())
        calibration, unrelated = on_sphere(2 * UNRELATED, job.width, generator).chunk(2)
        threshold = threshold_at(decide(memory(calibration), codes[kept]).scores, FALSE_FIRES)
        found = [
            decide(memory(some), codes[kept], threshold=threshold).best for some in (keys[kept], keys[gone], unrelated)
        ]
        right = found[0] == torch.arange(len(kept))
        return UpdatesResult(
            error, drift, _share(right), _share(found[1] == -1), _share(found[2] != -1), _share(before)
        )

    def checks(self, cells: Sequence[UpdatesCell]) -> list[Claim]:
        """Only float64, the type of `RecursiveMemory`, is held to the bound."""
        exact = [cell for cell in cells if cell.job.dtype == "float64"]
        if not exact:
            return []
        worst = max(cell.result.error for cell in exact)
        abstain = min(cell.result.deleted_abstain for cell in exact)
        job = exact[0].job
        what = f"{job.inserts:,} inserts, {job.deletes:,} deletes, width {job.width}"
        return [
            Claim(f"{what}: error", f"below {LARGEST_ERROR} of a batch solve", f"{worst:.1e}", worst < LARGEST_ERROR),
            Claim("deleted facts abstain", "at least 99 %", f"{abstain:.2%}", abstain >= 0.99),
        ]  # fmt: skip

    def table(self, cells: Sequence[UpdatesCell]) -> Table:
        """One line a run."""
        header = ("width", "inserts", "deletes", "state", "block", "relative error", "largest drift", "kept come back",
                  "deleted abstain", "unrelated fire", "deleted had come back")  # fmt: skip
        return Table(header, [_row(cell) for cell in cells])

    def plot(self, cells: Sequence[UpdatesCell]) -> Plot:
        """Drift along the deletes."""
        curves = [
            Curve(f"{c.job.dtype}, blocks of {c.job.block}", [
                (c.job.deletes * (place + 1) / len(c.result.drift), max(drift, 1e-18))
                for place, drift in enumerate(c.result.drift)
            ])
            for c in cells
        ]  # fmt: skip
        return Plot("facts deleted", "drift from a rebuild", curves, levels=(("bound", LARGEST_ERROR),))


def _deleted(memory: RecursiveMemory, ids: Sequence[str], places: torch.Tensor, block: int) -> float:
    """Delete, and say how far the memory then is from a rebuild."""
    for part in places.split(block):
        memory.delete([ids[place] for place in part])
    return memory.drift()


def _row(cell: UpdatesCell) -> list[str]:
    job, found = cell.job, cell.result
    return [
        str(job.width), f"{job.inserts:,}", f"{job.deletes:,}", job.dtype, str(job.block), f"{found.error:.1e}",
        f"{max(found.drift):.1e}", f"{found.kept_recall:.2%}", f"{found.deleted_abstain:.2%}",
        f"{found.unrelated_fire:.2%}", f"{found.recalled_before_delete:.2%}",
    ]  # fmt: skip


def _share(hits: torch.Tensor) -> float:
    return float(hits.float().mean())
