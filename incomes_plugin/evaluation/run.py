"""One run from options to figures: data -> selection -> method on a generator -> metrics. For command and benchmark."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from incomes_plugin.evaluation.backends.start import Backend
from incomes_plugin.evaluation.datasets import Dataset, load_dataset
from incomes_plugin.evaluation.harness import Evaluation, Progress, evaluate
from incomes_plugin.evaluation.interface import EvalSettings, Generator
from incomes_plugin.evaluation.metrics import Metrics, is_right, summarise
from incomes_plugin.evaluation.report import Failure, RunFacts, failure
from incomes_plugin.evaluation.selection import Selection, select
from incomes_plugin.model import DEFAULT_MODEL_DIR


@dataclass(frozen=True)
class RunOptions:
    """What to run.

    Attributes:
        data: a file, a name in `data_dir`, or a built-in.
        edits: N, active at once.
        limit: records that are asked about.
        method: a name in `methods.METHODS`.
    """

    data: str
    model: Path = DEFAULT_MODEL_DIR
    split: str = "dev"
    data_dir: Path | None = None
    edits: int = 100
    limit: int = 200
    seed: int = 0
    method: str = "ours"
    backend: Backend = Backend.VLLM
    max_answer_tokens: int = EvalSettings.max_answer_tokens
    failures: int = 0


@dataclass(frozen=True)
class Workload:
    """A data set and what was drawn from it."""

    dataset: Dataset
    selection: Selection

    @classmethod
    def draw(cls, options: RunOptions) -> Workload:
        """Read the data and draw the edits. Raises InvalidValue."""
        dataset = load_dataset(
            options.data,
            split=options.split,
            data_dir=options.data_dir,
            num_edits=options.edits,
            limit=options.limit,
            seed=options.seed,
        )
        selection = select(
            dataset.records,
            num_edits=options.edits,
            limit=options.limit,
            seed=options.seed,
            shuffle=not dataset.built_in,
        )
        return cls(dataset, selection)


@dataclass(frozen=True)
class RunResult:
    """What came out."""

    metrics: Metrics
    facts: RunFacts
    failures: tuple[Failure, ...]


def run(options: RunOptions, work: Workload, generator: Generator, progress: Progress) -> RunResult:
    """Evaluate and summarise."""
    settings = EvalSettings(options.seed, options.max_answer_tokens)
    found = evaluate(options.method, generator, work.selection, settings, progress)
    strict = work.dataset.built_in
    texts = [edit.text for edit in work.selection.edits]
    wrong = [o for o in found.outcomes if o.question.answers and not is_right(o, strict)]
    return RunResult(
        metrics=summarise(found.outcomes, strict=strict),
        facts=_facts(options, work, generator, found),
        failures=tuple(failure(outcome, texts) for outcome in wrong[: options.failures]),
    )


def _facts(options: RunOptions, work: Workload, generator: Generator, found: Evaluation) -> RunFacts:
    selection, dataset = work.selection, work.dataset
    return RunFacts(
        model=options.model.name,
        fingerprint=generator.fingerprint,
        method=options.method,
        backend=options.backend.value,
        data=dataset.name,
        source=dataset.source,
        split=None if dataset.built_in else options.split,
        seed=options.seed,
        edits=options.edits,
        edits_active=len(selection.edits),
        edits_refused=found.refused,
        records_asked=selection.asked,
        questions=len(found.outcomes),
        contradicting=selection.contradicting,
        overruled=selection.overruled,
        judged="strict" if dataset.built_in else "match",
        max_answer_tokens=options.max_answer_tokens,
        bytes_per_edit=found.bytes_per_edit,
        prepare_s=found.prepare_s,
        ask_s=found.ask_s,
    )
