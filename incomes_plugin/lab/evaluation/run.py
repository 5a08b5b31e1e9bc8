"""From options to figures: data -> selection -> questions -> a method on a generator -> metrics. Called by `cli.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from incomes_plugin.gist.fingerprint import base_fingerprint
from incomes_plugin.lab.data.prompts import passages
from incomes_plugin.lab.data.unrelated import PASSAGES
from incomes_plugin.lab.evaluation import derived
from incomes_plugin.lab.evaluation.datasets import Dataset, fillers, load_dataset
from incomes_plugin.lab.evaluation.harness import Base, Evaluation, evaluate
from incomes_plugin.lab.evaluation.interface import EvalQuestion, EvalSettings, Generator
from incomes_plugin.lab.evaluation.known import known
from incomes_plugin.lab.evaluation.metrics import Outcome, of_oracle, summarise
from incomes_plugin.lab.evaluation.report import Cell, CellFacts, failure
from incomes_plugin.lab.evaluation.selection import Selection, select
from incomes_plugin.lab.evaluation.unrelated import unrelated
from incomes_plugin.lab.progress import StageProgress

TYPES = (
    "rewrite", "rephrase", "portability", "multihop", "locality", "near_miss", "two_edits", "multi_turn", "long_prompt",
    "unrelated", "known",
)  # fmt: skip
"""What can be asked."""


ORACLE = "oracle"
"""The method that is run first, so that others can be judged by it."""

_PARAGRAPHS = 400


@dataclass(frozen=True)
class RunOptions:
    """What to draw and to ask.

    Attributes:
        data: a file, a name in the data folder, or a built-in.
        edits: N, active at once.
        limit: records that are asked about.
        left_out: records that are asked about though their edits are not in the pool.
        types: what is asked, some of `TYPES`.
        failures: wrong answers to keep.
    """

    data: str
    data_dir: Path
    split: str = "dev"
    edits: int = 100
    limit: int = 100
    left_out: int = 100
    seed: int = 0
    max_answer_tokens: int = EvalSettings.max_answer_tokens
    types: tuple[str, ...] = TYPES
    failures: int = 0


@dataclass(frozen=True)
class Workload:
    """A data set and what was drawn from it."""

    options: RunOptions
    dataset: Dataset
    selection: Selection

    @classmethod
    def draw(cls, options: RunOptions) -> Workload:
        """Read the data and draw the edits. Raises InvalidValue."""
        dataset = load_dataset(
            options.data,
            split=options.split,
            data_dir=options.data_dir,
            num_edits=options.edits + options.left_out,
            asked=options.left_out + options.limit,
            seed=options.seed,
        )
        fill = fillers(
            dataset.name, split=options.split, data_dir=options.data_dir, num_edits=options.edits, seed=options.seed
        )
        selection = select(
            dataset.records,
            num_edits=options.edits,
            limit=options.limit,
            left_out=options.left_out,
            seed=options.seed,
            shuffle=not dataset.built_in,
            fill=fill,
        )
        return cls(options, dataset, selection)


class Session:
    """One generator that is asked about many workloads; what the base says is remembered between them."""

    def __init__(self, generator: Generator, settings: EvalSettings, progress: StageProgress) -> None:
        self._base = Base(generator, settings)
        self._generator = generator
        self._settings = settings
        self._progress = progress
        self._fingerprint = base_fingerprint(generator.base_dir)
        self._oracle: tuple[Workload, Sequence[Outcome]] | None = None

    def cell(self, method: str, work: Workload, questions: Sequence[EvalQuestion]) -> Cell:
        """Evaluate and summarise one method on one workload; after the oracle on it, by what that answers too."""
        found = evaluate(method, self._base, work.selection.edits, questions, self._progress)
        metrics = summarise(found.outcomes)
        if method == ORACLE:
            self._oracle = (work, found.outcomes)
        elif self._oracle is not None and self._oracle[0] is work:
            metrics |= of_oracle(found.outcomes, self._oracle[1])
        texts = [edit.text for edit in work.selection.edits]
        wrong = [o for o in found.outcomes if o.failed]
        return Cell(
            metrics=metrics,
            facts=self._facts(method, work, found),
            failures=tuple(failure(outcome, texts) for outcome in wrong[: work.options.failures]),
        )

    def questions(self, work: Workload) -> list[EvalQuestion]:
        """Everything that is asked about a workload: the same for every method."""
        options, found = work.options, list(work.selection.questions)
        asked = derived.rewrites(found)
        found += derived.multi_turn(asked, options.seed)
        if work.dataset.built_in:  # other sets word their questions in ways that do not join
            found += derived.two_edits(asked)
        if "long_prompt" in options.types:
            found += self._long_prompts(asked, options)
        if "unrelated" in options.types:
            found += unrelated(options.data_dir, options.seed)
        if "known" in options.types:
            stage = "finding what the base knows"
            found += known(
                self._generator,
                self._fingerprint,
                options.data_dir,
                self._settings,
                lambda done: self._progress(stage, done, 0),
            )
        return [question for question in found if question.type in options.types]

    def _long_prompts(self, asked: Sequence[EvalQuestion], options: RunOptions) -> list[EvalQuestion]:
        paragraphs = passages(options.data_dir, _PARAGRAPHS, seed=options.seed) or list(PASSAGES)
        tokenizer = self._generator.tokenizer
        room = self._generator.max_context_tokens - options.max_answer_tokens - derived.ROOM_FOR_QUESTION
        return derived.long_prompts(
            asked,
            paragraphs,
            lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"]),
            room,
            options.seed,
        )

    def _facts(self, method: str, work: Workload, found: Evaluation) -> CellFacts:
        selection, dataset, options = work.selection, work.dataset, work.options
        return CellFacts(
            method=method,
            data=dataset.name,
            split=None if dataset.built_in else options.split,
            seed=options.seed,
            edits=options.edits,
            edits_active=len(selection.edits),
            edits_filled=selection.filled,
            edits_refused=found.refused,
            records_asked=selection.asked,
            records_left_out=selection.left_out,
            questions=len(found.outcomes),
            contradicting=selection.contradicting,
            overruled=selection.overruled,
            max_answer_tokens=options.max_answer_tokens,
            bytes_per_edit=found.bytes_per_edit,
            prepare_s=found.prepare_s,
            ask_s=found.ask_s,
        )
