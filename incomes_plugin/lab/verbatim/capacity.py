"""How much one memory vector, or K of them, hold: `incomes capacity` (after arXiv 2502.13063, without its mistakes).

A cell: texts of one source and length, so many vectors, one stored precision. First token and end token count. Accuracy
is of all tokens of all texts, exact means every token; information gain is measured on texts that were not held whole,
where it does not depend on how long the text is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import torch

from incomes_plugin.lab.facts.capacity.experiment import Claim, Curve, Experiment, Measurement, Plot, Table
from incomes_plugin.lab.verbatim.clauses import long_texts
from incomes_plugin.lab.verbatim.frozen import CramInput, FrozenModel
from incomes_plugin.lab.verbatim.optimise import Crammer
from incomes_plugin.lab.verbatim.planner import VectorCapacity
from incomes_plugin.lab.verbatim.precision import Precision
from incomes_plugin.lab.verbatim.row import CramJob, CramSettings
from incomes_plugin.lab.verbatim.start import mean_embeddings
from incomes_plugin.lab.verbatim.targets import CramTarget, special_ids

NATURAL, RANDOM = "natural", "random"
TEXTS, STEPS = 4, 300
NEVER = 10**6
"""More vectors than any job grows to: a cell keeps its number of vectors."""


@dataclass(frozen=True)
class CapacityJob:
    """One cell: `texts` texts of `tokens` tokens in `vectors` vectors each, at most `steps` steps."""

    source: str
    tokens: int
    vectors: int
    precision: Precision
    texts: int = TEXTS
    steps: int = STEPS

    def __post_init__(self) -> None:
        object.__setattr__(self, "precision", Precision(self.precision))


@dataclass(frozen=True)
class CapacityResult:
    """Of each text: tokens right with and without vectors (of `tokens + 1`), right ones before the first wrong one,
    nats of all tokens with and without, steps."""

    hits: Sequence[int]
    hits_without: Sequence[int]
    prefix: Sequence[int]
    nats: Sequence[float]
    nats_without: Sequence[float]
    steps: Sequence[int]


CapacityCell = Measurement[CapacityJob, CapacityResult]


class Capacity(Experiment[CapacityJob, CapacityResult]):
    """Cells for one model.

    Args:
        texts: natural texts to cut pieces from; by default those of `clauses.py`.
        per_cell: texts of a cell. steps: at most so many for each.
    """

    prefix = "verbatim"
    name = "capacity"
    title = "What memory vectors hold"
    job_type = CapacityJob
    result_type = CapacityResult

    def __init__(
        self, model: FrozenModel, texts: Sequence[str] | None = None, per_cell: int = TEXTS, steps: int = STEPS
    ) -> None:
        self.model, self.texts, self.per_cell, self.steps = model, texts, per_cell, steps

    def jobs(self, *, quick: bool) -> list[CapacityJob]:
        """The cells that a calibration needs come first, so that a run that is stopped early has one."""
        bf16 = Precision.BFLOAT16
        if quick:
            small = [(NATURAL, 8, 1), (NATURAL, 16, 1), (RANDOM, 16, 1), (NATURAL, 16, 2)]
            found = [CapacityJob(*one, bf16, texts=2, steps=10) for one in small]
            return [*found, CapacityJob(NATURAL, 8, 1, Precision.INT8, texts=2, steps=10)]
        cells = [
            (NATURAL, 24, 1),
            (NATURAL, 48, 2),
            (RANDOM, 24, 1),
            (NATURAL, 8, 1),
            (NATURAL, 16, 1),
            (NATURAL, 32, 1),
        ]
        cells += [
            (RANDOM, 8, 1),
            (RANDOM, 16, 1),
            (NATURAL, 96, 4),
            (RANDOM, 48, 2),
            (NATURAL, 48, 1),
            (NATURAL, 192, 8),
        ]
        others = [(NATURAL, 24, 1, precision) for precision in (Precision.FLOAT32, Precision.INT8)]
        ordered = [(*one, bf16) for one in cells[:3]] + others + [(*one, bf16) for one in cells[3:]]
        return [CapacityJob(*one, texts=self.per_cell, steps=self.steps) for one in ordered]

    def measure(self, job: CapacityJob) -> CapacityResult:
        """Cram the cell's texts, with the model's dtype and the precision of the cell."""
        targets = self._targets(job)
        settings = CramSettings(
            precision=job.precision, margin=0.0, max_steps=job.steps,
            patience=job.steps, most_rows=job.texts, most_positions=NEVER,
        )  # fmt: skip
        starts = [mean_embeddings(self.model, target.ids, job.vectors) for target in targets]
        jobs = [CramJob(target, start, job.vectors) for target, start in zip(targets, starts, strict=True)]
        ended = {outcome.target: outcome for outcome in Crammer(self.model, jobs, settings).run() if outcome}
        found = [ended[target] for target in targets]
        empty = torch.empty(0, self.model.hidden_size)
        without = self.model.scores([CramInput(empty, [*target.ids, self.model.end_id]) for target in targets])
        return CapacityResult(
            hits=tuple(outcome.hits for outcome in found),
            hits_without=tuple(int(scores.hits.sum()) for scores in without),
            prefix=tuple(outcome.prefix for outcome in found),
            nats=tuple(round(outcome.loss, 3) for outcome in found),
            nats_without=tuple(round(float(scores.loss.sum()), 3) for scores in without),
            steps=tuple(outcome.steps for outcome in found),
        )

    def _targets(self, job: CapacityJob) -> list[CramTarget]:
        """Pieces of texts, or tokens drawn from the whole vocabulary without the special ones."""
        if job.source == NATURAL:
            tokenizer = self.model.tokenizer
            ids = [tokenizer.encode(t, add_special_tokens=False) for t in self.texts or long_texts(job.texts)]
            return [CramTarget(f"{i}", tuple(own[: job.tokens])) for i, own in enumerate(ids[: job.texts])]
        special = special_ids(self.model.tokenizer)
        usual = torch.tensor([i for i in range(len(self.model.tokenizer)) if i not in special])
        generator = torch.Generator().manual_seed(job.tokens)
        drawn = usual[torch.randint(len(usual), (job.texts, job.tokens), generator=generator)]
        return [CramTarget(f"{i}", tuple(own)) for i, own in enumerate(drawn.tolist())]

    def bound(self, job: CapacityJob) -> float:
        """Tokens that as many stored bits could name at most: K d b / log2 |V|."""
        return job.vectors * self.model.hidden_size * job.precision.bits / math.log2(self.model.vocab_size)

    def checks(self, cells: Sequence[CapacityCell]) -> list[Claim]:
        """Information gain does not depend on the length, nor much on the source, and grows with K."""
        found = []
        one = _gains(cells, 1)
        if len(one) > 1:
            ratio = max(one.values()) / min(one.values())
            said = ", ".join(f"{source} {tokens}: {gain:.0f} bits" for (source, tokens), gain in one.items())
            found.append(
                Claim(
                    "largest / smallest information gain of one vector",
                    "1.3 at most",
                    f"{ratio:.2f} ({said})",
                    ratio <= 1.3,
                )
            )
        calibration = self.calibration(cells)
        if calibration and len(calibration.efficiency) > 1:
            said = ", ".join(f"K={k}: {eta:.2f}" for k, eta in calibration.efficiency.items())
            least = min(calibration.efficiency.values())
            found.append(Claim("efficiency of more vectors than one", "0.75 at least", said, least >= 0.75))
        return found

    def calibration(self, cells: Sequence[CapacityCell]) -> VectorCapacity | None:
        """What the planner needs, in nats; None before a natural cell of one vector has texts that it does not hold."""
        by_vectors = {k: gain for k in sorted({c.job.vectors for c in cells}) if (gain := _natural_gain(cells, k))}
        if 1 not in by_vectors:
            return None
        one = by_vectors[1]
        return VectorCapacity(one, {k: gain / (k * one) for k, gain in by_vectors.items()})

    def conclusion(self, cells: Sequence[CapacityCell]) -> dict[str, Any]:
        """Model and calibration, for the planner."""
        calibration = self.calibration(cells)
        found = {"model": self.model.folder.name, "origin": asdict(self.model.origin), "dtype": str(self.model.dtype)}
        return found | {"calibration": asdict(calibration) if calibration else None}

    def table(self, cells: Sequence[CapacityCell]) -> Table:
        """Figures of each cell."""
        header = (
            "source", "K", "tokens", "stored as", "texts exact", "accuracy", "right prefix", "token gain",
            "information gain, bits (texts not held)", "bound, tokens", "utilisation",
        )  # fmt: skip
        ordered = sorted(cells, key=lambda c: (c.job.source, c.job.precision != "bf16", c.job.vectors, c.job.tokens))
        return Table(header, [self._line(cell) for cell in ordered])

    def _line(self, cell: CapacityCell) -> list[str]:
        job, result = cell.job, cell.result
        total = job.tokens + 1
        gain = fmean(with_ - without for with_, without in zip(result.hits, result.hits_without, strict=True))
        bits = [nats / math.log(2) for nats in _unsolved(cell)]
        return [
            job.source, str(job.vectors), str(job.tokens), job.precision.value,
            f"{sum(hits == total for hits in result.hits)} of {job.texts}", f"{fmean(result.hits) / total:.1%}",
            f"{fmean(result.prefix):.1f}", f"{gain:.1f}", f"{fmean(bits):.0f} ({len(bits)})" if bits else "all held",
            f"{self.bound(job):.0f}", f"{gain / self.bound(job):.1%}",
        ]  # fmt: skip

    def plot(self, cells: Sequence[CapacityCell]) -> Plot:
        """Information gain against the length; texts that are held whole give all that they have."""
        curves = []
        keys = sorted({(c.job.source, c.job.vectors) for c in cells if c.job.precision is Precision.BFLOAT16})
        for source, count in keys:
            own = [c for c in _of(cells, count) if c.job.source == source]
            points = sorted((c.job.tokens, _bits(c)) for c in own)
            curves.append(Curve(f"{source}, K = {count}", points))
        natural = sorted(
            {(c.job.tokens, fmean(c.result.nats_without) / math.log(2)) for c in cells if c.job.source == NATURAL}
        )
        curves.append(Curve("what natural texts tell", natural, law=True))
        return Plot("tokens of the text", "information gain, bits", curves)


def _of(cells: Iterable[CapacityCell], vectors: int) -> list[CapacityCell]:
    return [c for c in cells if c.job.vectors == vectors and c.job.precision is Precision.BFLOAT16]


def _unsolved(cell: CapacityCell) -> list[float]:
    """Information gain in nats of each text that was not held whole."""
    r, total = cell.result, cell.job.tokens + 1
    return [before - after for hits, before, after in zip(r.hits, r.nats_without, r.nats, strict=True) if hits < total]


def _bits(cell: CapacityCell) -> float:
    """Mean information gain of all texts, in bits."""
    r = cell.result
    return fmean(a - b for a, b in zip(r.nats_without, r.nats, strict=True)) / math.log(2)


def _gains(cells: Sequence[CapacityCell], vectors: int) -> dict[tuple[str, int], float]:
    """Bits by source and length, of cells with texts that were not held."""
    own = sorted(_of(cells, vectors), key=lambda c: (c.job.source, c.job.tokens))
    return {(c.job.source, c.job.tokens): fmean(_unsolved(c)) / math.log(2) for c in own if _unsolved(c)}


def _natural_gain(cells: Sequence[CapacityCell], vectors: int) -> float | None:
    gains = [nats for c in _of(cells, vectors) if c.job.source == NATURAL for nats in _unsolved(c)]
    return fmean(gains) if gains else None
