"""One evaluation: a method learns the active edits and is asked; where it counts, so is the model without edits."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from incomes_plugin.evaluation.interface import Answer, EvalSettings, Generator, Method, PoolHandle, Question
from incomes_plugin.evaluation.methods import METHODS, Gists, NoEdits
from incomes_plugin.evaluation.metrics import Outcome
from incomes_plugin.evaluation.selection import Selection
from incomes_plugin.evaluation.unrelated import UNRELATED_PROMPTS

QUESTIONS_PER_CALL = 256
COMPARED = ("locality", "unrelated")
"""Question types whose greedy tokens must not change."""

Progress = Callable[[str, int, int], None]
"""Called with the stage, how far it is, and how much there is."""


@dataclass(frozen=True)
class Evaluation:
    """What was found.

    Attributes:
        refused: edits the model cannot take in (too long); questions about them are asked all the same.
        bytes_per_edit: stored for one edit, where the method keeps a pool.
        prepare_s, ask_s: seconds.
    """

    outcomes: tuple[Outcome, ...]
    refused: int
    bytes_per_edit: int | None
    prepare_s: float
    ask_s: float


def evaluate(
    name: str, generator: Generator, selection: Selection, settings: EvalSettings, progress: Progress
) -> Evaluation:
    """Run method `name` on the edits and questions of `selection`."""
    method = METHODS[name](generator, settings)
    progress("taking in edits", 0, 1)
    start_s = time.perf_counter()
    method.prepare(selection.edits)
    prepared_s = time.perf_counter()
    progress("taking in edits", 1, 1)
    questions = [*selection.questions, *unrelated_questions()]
    answers = _ask(method, questions, "asking", progress)
    asked_s = time.perf_counter()
    compared = [q for q in questions if q.type in COMPARED]
    plain = dict(
        zip(compared, _ask(NoEdits(generator, settings), compared, "asking without edits", progress), strict=True)
    )
    pool = method.pool if isinstance(method, Gists) else None
    if pool is not None:
        generator.release(pool)
    return Evaluation(
        outcomes=tuple(Outcome(q, a, plain.get(q)) for q, a in zip(questions, answers, strict=True)),
        refused=len(pool.refused) if pool else 0,
        bytes_per_edit=_bytes_per_edit(pool),
        prepare_s=round(prepared_s - start_s, 1),
        ask_s=round(asked_s - prepared_s, 1),
    )


def unrelated_questions() -> list[Question]:
    """Prompts that no edit is about."""
    return [
        Question(f"unrelated/{i}", "unrelated", None, prompt, (), None, cloze=False)
        for i, prompt in enumerate(UNRELATED_PROMPTS)
    ]


def _ask(method: Method, questions: Sequence[Question], stage: str, progress: Progress) -> list[Answer]:
    answers: list[Answer] = []
    progress(stage, 0, len(questions))
    for start in range(0, len(questions), QUESTIONS_PER_CALL):
        answers += method.ask(questions[start : start + QUESTIONS_PER_CALL])
        progress(stage, len(answers), len(questions))
    return answers


def _bytes_per_edit(pool: PoolHandle | None) -> int | None:
    return round(pool.num_bytes / pool.num_edits) if pool and pool.num_edits else None
