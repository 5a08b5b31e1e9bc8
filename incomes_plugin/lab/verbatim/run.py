"""Texts in, records or reasons out: plan -> optimise -> decode -> store. Stopped runs go on.

A text whose chunks are all accepted becomes a record; any other falls back to plain text, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import torch

from incomes_plugin.errors import InvalidValue
from incomes_plugin.lab.progress import StageProgress
from incomes_plugin.lab.verbatim.checkpoint import CramCheckpoint
from incomes_plugin.lab.verbatim.decode import greedy
from incomes_plugin.lab.verbatim.frozen import FrozenModel
from incomes_plugin.lab.verbatim.optimise import Acceptance, Crammer, CramOutcome
from incomes_plugin.lab.verbatim.planner import MOST_CHUNK_VECTORS, VectorCapacity, cuts
from incomes_plugin.lab.verbatim.record import VerbatimChunk, VerbatimRecord, digest, dump
from incomes_plugin.lab.verbatim.row import CramJob, CramSettings
from incomes_plugin.lab.verbatim.start import mean_embeddings, nearest, resized
from incomes_plugin.lab.verbatim.targets import CramTarget, tokens_of

CramStart = Callable[[FrozenModel, CramTarget, int], torch.Tensor]
"""Model, target, K -> vectors `[K, hidden]` to begin with."""


@dataclass(frozen=True)
class CramPlan:
    """A text's chunks and how many vectors each begins with.

    Attributes:
        nats: what the model does not know of each chunk, first and end token included.
        refusal: why the text is not crammed at all; empty if it is.
    """

    name: str
    text: str
    chunks: tuple[CramTarget, ...]
    vectors: tuple[int, ...]
    nats: tuple[float, ...]
    refusal: str = ""

    @property
    def num_tokens(self) -> int:
        """Of the text, without end tokens."""
        return sum(len(chunk.ids) for chunk in self.chunks)


@dataclass(frozen=True)
class CramResult:
    """What became of a text: a record, or a reason why plain text is used."""

    plan: CramPlan
    outcomes: tuple[CramOutcome, ...] = field(default=())
    record: VerbatimRecord | None = None
    reason: str = ""


def plan(model: FrozenModel, name: str, text: str, calibration: VectorCapacity) -> CramPlan:
    """Chunks and vectors of one text.

    A text that the tokenizer does not give back is refused, and one that needs as many vectors as it has tokens: the
    text itself is the better choice.
    """
    try:
        ids = tokens_of(model.tokenizer, text, name)
    except InvalidValue as error:
        return CramPlan(name, text, (), (), (), error.message)
    if len(ids) > model.max_positions - 2:
        return CramPlan(name, text, (), (), (), f"{len(ids)} tokens; the model takes {model.max_positions - 2} at once")
    most_nats = calibration.rho * calibration.nats(MOST_CHUNK_VECTORS)
    ends = [0, *cuts(model.surprisal(ids).tolist()[:-1], most_nats)]
    pieces = [ids[begin:end] for begin, end in pairwise(ends)]
    chunks = tuple(CramTarget(f"{name}/{index}", piece) for index, piece in enumerate(pieces))
    nats = tuple(float(model.surprisal(piece).sum()) for piece in pieces)
    vectors = tuple(map(calibration.vectors, nats))
    refusal = ""
    if sum(vectors) >= len(ids):
        refusal = f"it would need {sum(vectors)} vectors for {len(ids)} tokens: the text in the prompt is not longer"
    return CramPlan(name, text, chunks, vectors, nats, refusal)


def from_means(model: FrozenModel, target: CramTarget, count: int) -> torch.Tensor:
    """Start at the mean embeddings of the text's pieces."""
    return mean_embeddings(model, target.ids, count)


def from_similar(others: Sequence[tuple[Sequence[int], torch.Tensor]]) -> CramStart:
    """Start at the vectors of the most similar text: (token ids, vectors `[K, hidden]`) of each known one.

    A former version of a text is its most similar one. Where none shares half of the tokens, and for vectors beyond
    those of the other text, the text's pieces are the start.
    """

    def start(model: FrozenModel, target: CramTarget, count: int) -> torch.Tensor:
        means = mean_embeddings(model, target.ids, count)
        index = nearest(target.ids, [ids for ids, _ in others])
        return means if index is None else resized(others[index][1], means)

    return start


def decoded_by(model: FrozenModel) -> Acceptance:
    """Accept what the model decodes token by token."""

    def accept(target: CramTarget, vectors: torch.Tensor) -> bool:
        return greedy(model, vectors, len(target.ids) + 1) == [*target.ids, model.end_id]

    return accept


def jobs_of(model: FrozenModel, plans: Sequence[CramPlan], start: CramStart = from_means) -> list[CramJob]:
    """A job for each chunk that is to be crammed. It may grow to twice its planned vectors, below its own length."""
    return [
        CramJob(chunk, start(model, chunk, count), max(count, min(2 * count + 1, len(chunk.ids) - 1)))
        for one in plans
        if not one.refusal
        for chunk, count in zip(one.chunks, one.vectors, strict=True)
    ]


def cram(
    model: FrozenModel,
    plans: Sequence[CramPlan],
    settings: CramSettings,
    state: Path | None,
    progress: StageProgress,
    start: CramStart = from_means,
) -> list[CramResult]:
    """Cram all plans together.

    Args:
        state: file of a checkpoint; a run that finds one goes on from it.

    Raises:
        InvalidValue: the checkpoint belongs to something else.
    """
    optimiser = Crammer(model, jobs_of(model, plans, start), settings, decoded_by(model))
    checkpoint = CramCheckpoint(state) if state else None
    outcomes = checkpoint.restore(optimiser) if checkpoint else []
    for outcome in optimiser.run():
        outcomes += [outcome] if outcome else []
        if checkpoint:
            checkpoint.save(optimiser, outcomes)
        progress("cramming", len(outcomes), len(optimiser.jobs))
    if checkpoint:
        checkpoint.save(optimiser, outcomes, now=True)
    by_name = {outcome.target.name: outcome for outcome in outcomes}
    return [crammed(model, one, settings, by_name) for one in plans]


def crammed(model: FrozenModel, one: CramPlan, settings: CramSettings, by_name: dict[str, CramOutcome]) -> CramResult:
    """What became of a text whose chunks have all ended."""
    if one.refusal:
        return CramResult(one, reason=one.refusal)
    outcomes = tuple(by_name[chunk.name] for chunk in one.chunks)
    reasons = [f"chunk {i}: {outcome.reason}" for i, outcome in enumerate(outcomes) if not outcome.accepted]
    if reasons:
        return CramResult(one, outcomes, reason="; ".join(reasons))
    chunks = tuple(map(VerbatimChunk.of, outcomes))
    record = VerbatimRecord(model.origin, settings.precision, digest(one.text.encode()), chunks)
    return CramResult(one, outcomes, record)


def write(found: Sequence[CramResult], out: Path) -> None:
    """Write `<name>.safetensors` of each record: of texts that the serving engine has said."""
    for one in found:
        if one.record:
            (out / f"{one.plan.name}.safetensors").write_bytes(dump(one.record))
