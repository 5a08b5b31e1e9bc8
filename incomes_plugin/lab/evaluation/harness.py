"""Asks one method: it takes in the edits and answers. Where answers must stay unchanged, the base without edits is
asked too."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from incomes_plugin.lab.evaluation.interface import Answer, EvalEdit, EvalQuestion, EvalSettings, Generator, messages
from incomes_plugin.lab.evaluation.methods import METHODS, Gists
from incomes_plugin.lab.evaluation.metrics import COMPARED, Outcome
from incomes_plugin.lab.progress import StageProgress


@dataclass
class Base:
    """The base's answers without edits. Every prompt is asked once, however many methods are compared with it."""

    generator: Generator
    settings: EvalSettings
    _answers: dict[tuple[int, ...], Answer] = field(default_factory=dict)

    def answers(self, questions: Sequence[EvalQuestion], progress: StageProgress) -> list[Answer]:
        """One answer per question, in order."""
        prompts = [tuple(self.generator.chat_ids(messages(question))) for question in questions]
        new = list(dict.fromkeys(prompt for prompt in prompts if prompt not in self._answers))
        stage = "asking the base without edits"
        found = self.generator.generate(
            new, None, self.settings.max_answer_tokens, lambda done: progress(stage, done, len(new))
        )
        self._answers.update(zip(new, found, strict=True))
        return [self._answers[prompt] for prompt in prompts]


@dataclass(frozen=True)
class Evaluation:
    """What was found.

    Attributes:
        refused: edits the model cannot take in (too long); questions about them are asked all the same.
        bytes_per_edit: stored for one edit, where the method keeps a pool.
        prepare_s, ask_s: seconds; what the base is asked for comparison is not counted.
    """

    outcomes: tuple[Outcome, ...]
    refused: int
    bytes_per_edit: int | None
    prepare_s: float
    ask_s: float


def evaluate(
    name: str, base: Base, edits: Sequence[EvalEdit], questions: Sequence[EvalQuestion], progress: StageProgress
) -> Evaluation:
    """Run method `name` with all `edits` active."""
    method = METHODS[name](base.generator, base.settings)
    try:
        progress("taking in edits", 0, 1)
        start_s = time.perf_counter()
        method.prepare(edits)
        prepared_s = time.perf_counter()
        progress("taking in edits", 1, 1)
        answers = method.ask(questions, lambda done: progress("asking", done, len(questions)))
        asked_s = time.perf_counter()
        pool = method.pool if isinstance(method, Gists) else None
    finally:
        method.close()
    compared = [question for question in questions if question.type in COMPARED]
    plain = {q.id: answer for q, answer in zip(compared, base.answers(compared, progress), strict=True)}
    texts = {edit.index: edit.text for edit in edits}
    return Evaluation(
        outcomes=tuple(
            Outcome(q, a, plain.get(q.id), "".join(texts[edit] for edit in a.applied[:1]))
            for q, a in zip(questions, answers, strict=True)
        ),
        refused=len(pool.refused) if pool else 0,
        bytes_per_edit=round(pool.num_bytes / pool.num_edits) if pool and pool.num_edits else None,
        prepare_s=round(prepared_s - start_s, 1),
        ask_s=round(asked_s - prepared_s, 1),
    )
