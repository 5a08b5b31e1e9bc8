"""/v1/edit_sets/{edit_set}/test_suite and /v1/eval_runs: what a state of an edit set answers, before a label moves."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from incomes_server.api.admin.asker import EVALUATION_TIMEOUT_S
from incomes_server.api.admin.context import AdminContext, Context, Limit, Project, WriteId
from incomes_server.api.admin.eval_schemas import EvalRunContent, EvalRunObject, SuiteContent, SuiteObject
from incomes_server.api.admin.schemas import Page, SetRef
from incomes_server.api.admin.timed import answered_within
from incomes_server.api.admin.trials import asker_of
from incomes_server.edits.evaluation import EvalSuite
from incomes_server.edits.questions import Asked, AskedQuestion, question_of
from incomes_server.store.evaluations import check_whole

from incomes_plugin.errors import InvalidValue
from incomes_plugin.pool.snapshot import SnapshotRef

MAX_GENERATED = 200
"""Edits that are asked by a question made from their words, the newest ones of a state."""

router = APIRouter(prefix="/v1", tags=["evaluation"])


@router.get("/edit_sets/{edit_set}/test_suite", response_model=SuiteObject)
async def get_test_suite(edit_set: str, context: Context, project: Project) -> SuiteObject:
    """Read what an edit set is asked, and whether its labels wait for the answers."""
    return SuiteObject.of(await context.store.get_suite(project, edit_set))


@router.put("/edit_sets/{edit_set}/test_suite", response_model=SuiteObject)
async def put_test_suite(
    edit_set: str, body: SuiteContent, context: Context, project: Project, request_id: WriteId
) -> SuiteObject:
    """Replace what an edit set is asked."""
    return SuiteObject.of(await context.store.set_suite(project, body.suite_of(edit_set), request_id=request_id))


@router.post("/eval_runs", status_code=201, response_model=EvalRunObject)
async def create_eval_run(
    body: EvalRunContent, context: Context, project: Project, request_id: WriteId
) -> EvalRunObject:
    """Ask a state of an edit set its questions, and keep the answers. They are generated: no verbatim edit answers."""
    asker = asker_of(context)
    async with answered_within(EVALUATION_TIMEOUT_S):
        snapshot = await context.store.state_at(project, body.edit_set, body.to)
        await context.store.read(check_whole, snapshot)
        questions = await _questions(context, await context.store.get_suite(project, snapshot.edit_set), snapshot)
        async with asker.turn(project), asker.state(snapshot) as state:
            answers = await asker.ask([question.text for question in questions], state, body.max_tokens)
        asked = [Asked(question, answer.text) for question, answer in zip(questions, answers, strict=True)]
        run = await context.store.record_run(project, snapshot, asked, request_id=request_id)
        return EvalRunObject.of(*await context.store.get_run(project, run.id))


@router.get("/eval_runs", response_model=Page[EvalRunObject])
async def list_eval_runs(
    context: Context,
    project: Project,
    edit_set: Annotated[SetRef, Query(description="name or id of the edit set")],
    limit: Limit = 20,
    after: Annotated[str | None, Query(description="id of the last item of the page before")] = None,
    order: Literal["asc", "desc"] = "desc",
) -> Page[EvalRunObject]:
    """List the runs of an edit set, newest first, without answers."""
    runs, has_more = await context.store.list_runs(project, edit_set, limit=limit, after=after, order=order)
    return Page[EvalRunObject].of([EvalRunObject.short(run) for run in runs], has_more)


@router.get("/eval_runs/{run}", response_model=EvalRunObject)
async def get_eval_run(run: str, context: Context, project: Project) -> EvalRunObject:
    """Read a run: every answer, and what became of those of the run before it."""
    return EvalRunObject.of(*await context.store.get_run(project, run))


async def _questions(context: AdminContext, suite: EvalSuite, snapshot: SnapshotRef) -> list[AskedQuestion]:
    """Those given, and one for each of the newest edits whose words make one and are not asked about already."""
    questions = list(suite.questions)
    if suite.generated:
        known = {question.text for question in questions}
        for edit in await context.store.newest_at(snapshot, MAX_GENERATED):
            made = question_of(edit.text, edit.id) if edit.kind == "fact" else None
            if made is not None and made.text not in known:
                questions.append(made)
                known.add(made.text)
    if not questions:
        raise InvalidValue(
            "there is nothing to ask: the test suite has no question, and no edit's words make one", param="edit_set"
        )
    return questions
