"""JSON shapes of test suites and evaluation runs."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from incomes_server.api.admin.schemas import RequestBody, Resource, SetRef
from incomes_server.api.admin.trial_schemas import AskedText
from incomes_server.edits.evaluation import EvalRun, EvalSuite
from incomes_server.edits.label import HEAD
from incomes_server.edits.questions import Asked, AskedQuestion, compare
from pydantic import BaseModel, Field

Expected = Annotated[list[AskedText], Field(min_length=1, max_length=16)]


class SuiteQuestion(RequestBody):
    """A question, and what a right answer has to say: one of `expected`, however it is spelled and spaced."""

    question: AskedText
    expected: Expected


class SuiteContent(RequestBody):
    """Body of `PUT /v1/edit_sets/{edit_set}/test_suite`."""

    questions: list[SuiteQuestion] = Field(default_factory=list, max_length=500)
    generated: bool = Field(True, description="ask edits that no question is given for by one made from their words")
    required: bool = Field(False, description="labels move only to states whose last run passed")
    least_share: float = Field(1.0, ge=0, le=1, description="share of right answers from which on a run has passed")

    def suite_of(self, edit_set: str) -> EvalSuite:
        """The store's form."""
        questions = tuple(AskedQuestion(item.question, tuple(item.expected)) for item in self.questions)
        return EvalSuite(edit_set, questions, self.generated, self.required, self.least_share)


class SuiteObject(Resource):
    """What an edit set is asked."""

    object: Literal["test_suite"] = "test_suite"
    questions: list[SuiteQuestion]
    generated: bool
    required: bool
    least_share: float
    updated_at: int

    @classmethod
    def of(cls, suite: EvalSuite) -> Self:
        """Render a stored suite; its id is that of its edit set."""
        questions = [SuiteQuestion(question=q.text, expected=list(q.expected)) for q in suite.questions]
        own = {"generated": suite.generated, "required": suite.required, "least_share": suite.least_share}
        return cls(id=suite.edit_set, questions=questions, updated_at=suite.updated_at, **own)


class EvalRunContent(RequestBody):
    """Body of `POST /v1/eval_runs`; `to` is `head`, a version, a snapshot's id or a label."""

    edit_set: SetRef
    to: SetRef = HEAD
    max_tokens: int = Field(32, ge=1, le=256, description="longest answer")


class EvalResult(BaseModel):
    """A question and its answer; `source` is `given`, or the edit that the question was made from."""

    question: str
    expected: list[str]
    source: str
    answer: str
    passed: bool

    @classmethod
    def of(cls, asked: Asked) -> Self:
        """Render an answer."""
        question = asked.question
        own = {"source": question.source, "answer": asked.answer, "passed": asked.passed}
        return cls(question=question.text, expected=list(question.expected), **own)


class RegressionReport(BaseModel):
    """Against the run before: questions answered wrong that were right, right that were wrong, and not asked then."""

    previous: str
    broken: list[str]
    mended: list[str]
    new: list[str]


class EvalRunObject(Resource):
    """What a state of an edit set answered. A list has neither `results` nor `regressions`."""

    object: Literal["eval.run"] = "eval.run"
    edit_set: str
    snapshot: str
    version: int
    created_at: int
    status: Literal["passed", "failed"]
    total: int
    passed: int
    results: list[EvalResult] | None = None
    regressions: RegressionReport | None = None

    @classmethod
    def short(cls, run: EvalRun) -> Self:
        """Without answers."""
        return cls(
            id=run.id,
            edit_set=run.edit_set,
            snapshot=run.snapshot.id,
            version=run.snapshot.version,
            created_at=run.created_at,
            status="passed" if run.passed else "failed",
            total=len(run.asked),
            passed=run.num_right,
        )

    @classmethod
    def of(cls, run: EvalRun, before: EvalRun | None) -> Self:
        """With every answer."""
        report = None
        if before is not None:
            found = compare(run.asked, before.asked)
            lists = {"broken": list(found.broken), "mended": list(found.mended), "new": list(found.new)}
            report = RegressionReport(previous=before.id, **lists)
        results = [EvalResult.of(asked) for asked in run.asked]
        return cls.short(run).model_copy(update={"results": results, "regressions": report})
