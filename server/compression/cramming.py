"""Texts on their way into vectors, many at once, on a frozen copy of the base: jobs in, outcomes out, pass by pass.

`Cramming` is pure; `CramActor` is it in a Ray process of its own, behind everything that serves. Nothing of it is on a
disk: a process that ends leaves texts to be begun again, and no vectors.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from incomes_server.edits.verbatim import VerbatimJob, VerbatimOutcome, VerbatimState

from incomes_plugin.errors import IncomesError
from incomes_plugin.gist.edit import EditKey
from incomes_plugin.lab.verbatim.frozen import FrozenModel
from incomes_plugin.lab.verbatim.optimise import Crammer, CramOutcome
from incomes_plugin.lab.verbatim.planner import VectorCapacity
from incomes_plugin.lab.verbatim.record import VerbatimRecord, dump, load_record
from incomes_plugin.lab.verbatim.row import CramSettings
from incomes_plugin.lab.verbatim.run import CramPlan, CramStart, crammed, decoded_by, from_similar, jobs_of, plan

logger = logging.getLogger("incomes.verbatim")

USUAL_NATS = 60.0
"""Nats that one vector is taken to hold where nobody measured the model: two thirds of what it found
for the default base."""
NICENESS = 10
"""The serving engine's processes come first."""


@dataclass(frozen=True)
class CramLimits:
    """How a worker makes vectors.

    Attributes:
        base_dir: the base that is served. dtype: what serving computes in, e.g. `bfloat16`.
        threads: of the CPU. texts: at the same time. steps: at one number of vectors.
        capacity: file of `incomes capacity`; None = `USUAL_NATS`.
    """

    base_dir: Path
    dtype: str
    threads: int = 1
    texts: int = 16
    steps: int = 600
    capacity: Path | None = None

    def load(self) -> tuple[FrozenModel, VectorCapacity, CramSettings]:
        """The base, what its vectors hold, and how they are searched. Raises InvalidValue: another base's capacity."""
        model = FrozenModel(self.base_dir, getattr(torch, self.dtype))
        usual = VectorCapacity(USUAL_NATS)
        measured = self.capacity and VectorCapacity.read(self.capacity, model.origin.model, VectorCapacity.rho)
        return model, measured or usual, CramSettings(max_steps=self.steps, most_rows=self.texts)


class Cramming:
    """Texts that leave when they are done, and make room for others."""

    def __init__(self, model: FrozenModel, capacity: VectorCapacity, settings: CramSettings) -> None:
        self.model, self.capacity, self.settings = model, capacity, settings
        self.origin = json.dumps(asdict(model.origin))
        self._crammer = Crammer(model, (), settings, decoded_by(model))
        self._jobs: dict[EditKey, VerbatimJob] = {}
        self._plans: dict[EditKey, CramPlan] = {}
        self._ended: dict[EditKey, dict[str, CramOutcome]] = {}
        self._passes = self._crammer.run()

    @property
    def busy(self) -> bool:
        """Whether there is something to do."""
        return bool(self._plans)

    def add(self, job: VerbatimJob) -> VerbatimOutcome | None:
        """Plan a text; the outcome if it stays text. One that is there already begins anew."""
        self.keep(self._plans.keys() - {job.edit})
        one = plan(self.model, f"{job.edit_id}@{job.version}", job.text, self.capacity)
        if one.refusal:
            return VerbatimOutcome(*job.edit, VerbatimState.TEXT_FALLBACK, one.refusal, self.origin)
        self._jobs[job.edit], self._plans[job.edit], self._ended[job.edit] = job, one, {}
        self._crammer.waiting.extend(jobs_of(self.model, [one], self._start(job)))
        return None

    def keep(self, edits: Collection[EditKey]) -> None:
        """Forget all others: their vectors too."""
        for edit in [edit for edit in self._plans if edit not in edits]:
            del self._jobs[edit], self._plans[edit], self._ended[edit]
        names = {chunk.name for one in self._plans.values() for chunk in one.chunks}
        crammer = self._crammer
        crammer.rows[:] = [row for row in crammer.rows if row.job.target.name in names]
        for job in [job for job in crammer.waiting if job.target.name not in names]:
            crammer.waiting.remove(job)

    def step(self) -> list[VerbatimOutcome]:
        """One pass, or one more of the chunks that ended in it; texts that are done: all chunks accepted, one given up.
        Former vectors may have been a bad start, those of another model most of all: what was given up from there
        begins once more without them. What ended for a text that left or began anew meanwhile is of no use."""
        outcome = next(self._passes, None)
        if outcome is None:
            if not self._crammer.rows and not self._crammer.waiting:
                self._passes = self._crammer.run()
            return []
        target = outcome.target  # the very one: a text that begins anew has equal ones
        edit = next((edit for edit, one in self._plans.items() if any(target is each for each in one.chunks)), None)
        if edit is None:
            return []
        one, ended = self._plans[edit], self._ended[edit]
        ended[outcome.target.name] = outcome
        if outcome.accepted and len(ended) < len(one.chunks):
            return []
        if not outcome.accepted and self._jobs[edit].former is not None:
            self.add(replace(self._jobs[edit], former=None, former_text=None))
            return []
        found = self._outcome(edit, one, ended, outcome)
        self.keep(self._plans.keys() - {edit})
        return [found]

    def _outcome(
        self, edit: EditKey, one: CramPlan, ended: dict[str, CramOutcome], last: CramOutcome
    ) -> VerbatimOutcome:
        steps = sum(outcome.steps for outcome in ended.values())
        told = partial(VerbatimOutcome, *edit, origin=self.origin, tokens=one.num_tokens, steps=steps)
        if not last.accepted:
            return told(VerbatimState.TEXT_FALLBACK, f"chunk {one.chunks.index(last.target)}: {last.reason}")
        record = crammed(self.model, one, self.settings, ended).record
        assert record is not None
        margin = min(chunk.margin for chunk in record.chunks)
        return told(VerbatimState.VERIFIED, None, record=dump(record), vectors=record.num_vectors, margin=margin)

    def _start(self, job: VerbatimJob) -> CramStart:
        """At former vectors, where they are of this size; else at the means of the text's pieces."""
        if job.former is None or job.former_text is None:
            return from_similar(())
        try:
            record: VerbatimRecord = load_record(job.former)
        except IncomesError as error:
            logger.warning("former vectors of %s are of no use: %s", job.edit_id, error.message)
            return from_similar(())
        ids = self.model.tokenizer.encode(job.former_text, add_special_tokens=False)
        known, begin = [], 0
        for chunk in record.chunks:
            if chunk.vectors.shape[1] == self.model.hidden_size:
                known.append((ids[begin : begin + chunk.num_tokens], chunk.vectors))
            begin += chunk.num_tokens
        return from_similar(known)


class CramActor:
    """A process that makes vectors, called by one server; it computes while it is asked."""

    def __init__(self, limits: CramLimits) -> None:
        os.nice(NICENESS)
        torch.set_num_threads(limits.threads)
        self._cramming = Cramming(*limits.load())

    def work(self, held: Sequence[EditKey], jobs: Sequence[VerbatimJob], budget_s: float) -> list[VerbatimOutcome]:
        """Go on with texts, take new ones, drop all others; return when some are done, or after about `budget_s`."""
        end_s = time.monotonic() + budget_s
        self._cramming.keep(held)
        done = [outcome for job in jobs if (outcome := self._cramming.add(job)) is not None]
        while not done and self._cramming.busy and time.monotonic() < end_s:
            done += self._cramming.step()
        return done
