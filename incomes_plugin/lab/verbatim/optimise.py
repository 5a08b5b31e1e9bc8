"""Cram many texts at once: jobs in, outcomes out, in the order in which they end.

Every pass: scores of all running texts -> texts that are exact with margin are shown to `accept` and leave -> texts
that are stuck get more vectors, or give up -> all others take a step -> free places go to waiting texts. The numbers
that are accepted are those that were judged: nothing moves in between.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from incomes_plugin.lab.verbatim.frozen import CramInput, FrozenModel, TokenScores
from incomes_plugin.lab.verbatim.row import CramJob, CramRow, CramSettings
from incomes_plugin.lab.verbatim.start import mean_embeddings, resized
from incomes_plugin.lab.verbatim.targets import CramTarget

Acceptance = Callable[[CramTarget, torch.Tensor], bool]
"""Called with vectors `[K, hidden]`, as stored, that are exact with margin: does greedy decoding give the text?"""


@dataclass(frozen=True)
class CramOutcome:
    """What became of a text.

    Attributes:
        accepted: exact with margin, and decoded.
        vectors: `[K, hidden]` float32, the numbers of the stored form; of a text that was given up: the last ones.
        steps: of the optimiser, with all numbers of vectors together.
        margin: smallest over all tokens, in logits.
        loss: nats of all tokens together.
        hits: tokens right, of `len(ids) + 1`; prefix: right ones before the first wrong one.
        refused: how often the decoder said something else although the margin was there.
    """

    target: CramTarget
    accepted: bool
    vectors: torch.Tensor
    steps: int
    margin: float
    loss: float
    hits: int
    prefix: int
    refused: int

    @property
    def reason(self) -> str:
        """Why it was given up; empty if it was not."""
        if self.accepted:
            return ""
        asked = f"{len(self.vectors)} vectors and {self.steps} steps"
        return f"{self.hits} of {len(self.target.ids) + 1} tokens right after {asked}, least margin {self.margin:.2f}"


class Crammer:
    """Iterate over `run` for outcomes.

    `jobs` is everything, `waiting` what has not begun, `rows` what runs: `checkpoint.py` reads them between two passes,
    and fills them when a stopped run goes on.

    Args:
        accept: see `Acceptance`; None accepts by margin alone.
    """

    def __init__(
        self, model: FrozenModel, jobs: Sequence[CramJob], settings: CramSettings, accept: Acceptance | None = None
    ) -> None:
        self.model, self.settings, self.accept = model, settings, accept
        self.jobs = tuple(jobs)
        self.waiting = deque(sorted(jobs, key=lambda job: len(job.target.ids)))
        self.rows: list[CramRow] = []

    def run(self) -> Iterator[CramOutcome | None]:
        """Outcomes as they come; None after a pass in which no text ended."""
        while self.rows or self.waiting:
            self._fill()
            ended = list(self._pass())
            yield from ended
            if not ended:
                yield None

    def _fill(self) -> None:
        """Let waiting texts in while there is room; one text alone always has room."""
        while self.waiting and len(self.rows) < self.settings.most_rows:
            widths = [len(row.job.target.ids) + row.num_vectors for row in self.rows]
            new = self.waiting[0]
            widest = max([*widths, len(new.target.ids) + len(new.start)])
            if self.rows and widest * (len(self.rows) + 1) > self.settings.most_positions:
                return
            self.rows.append(CramRow(self.waiting.popleft(), self.settings))

    def _pass(self) -> Iterator[CramOutcome]:
        vectors = [row.vectors() for row in self.rows]
        batch = [
            CramInput(v, [*row.job.target.ids, self.model.end_id]) for v, row in zip(vectors, self.rows, strict=True)
        ]
        found = self.model.scores_and_gradients(batch, [row.weights for row in self.rows])
        for row, own, scores in zip(list(self.rows), vectors, found, strict=True):
            if outcome := self._judge(row, own.detach(), scores):
                self.rows.remove(row)
                yield outcome

    def _judge(self, row: CramRow, vectors: torch.Tensor, scores: TokenScores) -> CramOutcome | None:
        """Decide first, step afterwards."""
        if float(scores.margin.min()) >= row.demand and bool(scores.hits.all()):
            if self.accept is None or self.accept(row.job.target, vectors):
                return _outcome(row, vectors, scores, accepted=True)
            row.refused += 1
            row.demand = 1.5 * max(row.demand, 0.5)
        if row.stuck:
            if row.grown() > row.job.most_vectors:
                return _outcome(row, vectors, scores, accepted=False)
            row.restart(resized(vectors, mean_embeddings(self.model, row.job.target.ids, row.grown())))
            return None
        row.step(float((scores.loss * row.weights).sum()))
        return None


def _outcome(row: CramRow, vectors: torch.Tensor, scores: TokenScores, *, accepted: bool) -> CramOutcome:
    return CramOutcome(
        target=row.job.target,
        accepted=accepted,
        vectors=vectors.clone(),
        steps=row.steps,
        margin=float(scores.margin.min()),
        loss=float(scores.loss.sum()),
        hits=int(scores.hits.sum()),
        prefix=int(scores.hits.long().cumprod(0).sum()),
        refused=row.refused,
    )
