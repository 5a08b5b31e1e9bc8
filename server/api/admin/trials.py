"""POST /v1/edits/validate and /v1/edits/preview: what an edit would do, without storing it."""

from __future__ import annotations

from collections.abc import Collection

from fastapi import APIRouter
from incomes_server.api.admin.asker import EVALUATION_TIMEOUT_S, SCRATCH_EDIT, StateAnswer, StateAsker
from incomes_server.api.admin.context import AdminContext, Context, Project
from incomes_server.api.admin.schemas import ConflictObject, CreateEdit
from incomes_server.api.admin.timed import DEFAULT_TIMEOUT_S, answered_within
from incomes_server.api.admin.trial_schemas import (
    Neighbour,
    PreviewAnswer,
    PreviewContent,
    PreviewObject,
    Problem,
    ValidationObject,
)
from incomes_server.edits import EditSet, EditStatus
from incomes_server.edits.model import NewEdit
from incomes_server.edits.questions import AskedQuestion, question_of

from incomes_plugin.errors import EditConflict, EditNotFound, EditSetNotFound, IncomesError, NotReady
from incomes_plugin.pool.snapshot import SnapshotRef

NO_SET = "eset_none"
"""Stands for the project's default set until its first edit makes it."""

router = APIRouter(prefix="/v1/edits", tags=["edits"])


@router.post("/validate", response_model=ValidationObject)
async def validate_edit(body: CreateEdit, context: Context, project: Project) -> ValidationObject:
    """Say which rules of `POST /v1/edits` an edit breaks, all of them, and write nothing."""
    async with answered_within(DEFAULT_TIMEOUT_S):
        return await _validation(body, context, project)


@router.post("/preview", response_model=PreviewObject)
async def preview_edit(body: PreviewContent, context: Context, project: Project) -> PreviewObject:
    """Answer questions without and with an edit, its own and those of edits nearby; the edit is dropped afterwards."""
    async with answered_within(EVALUATION_TIMEOUT_S):
        return await _preview(body, context, project)


async def _validation(body: CreateEdit, context: AdminContext, project: str) -> ValidationObject:
    problems: list[IncomesError] = []
    num_tokens = len(context.tokenizer.ids(body.text))
    try:
        new = context.tokenizer.new_edit(body)
    except IncomesError as error:
        problems.append(error)
    else:
        num_tokens = len(new.token_ids)
        for rule in (_fits_the_store, _fits_the_pool, _fits_the_queue):
            try:
                await rule(context, project, body, new)
            except IncomesError as error:
                problems.append(error)
    conflicts = None
    if not problems:
        edit_set = await _set_of(context, project, body)
        conflicts = await _conflicts(context, project, new, edit_set.id, without=body.supersedes)
    return ValidationObject(
        valid=not problems,
        num_tokens=num_tokens,
        max_tokens=context.tokenizer.max_edit_tokens,
        gist_bytes=context.room.most_bytes(num_tokens),
        problems=[Problem(code=error.code, message=error.message, param=error.param) for error in problems],
        conflicts=conflicts,
    )


async def _preview(body: PreviewContent, context: AdminContext, project: str) -> PreviewObject:
    asker, edit_set = asker_of(context), await _set_of(context, project, body)
    replaced = [*body.supersedes] + ([] if body.replaces is None else [body.replaces])
    found = await context.store.get_edits(project, replaced) if replaced else []
    former = next((edit.verbatim.keys for edit in found if edit.id == body.replaces and edit.verbatim), None)
    new = context.tokenizer.new_edit(body, former)
    for edit in found:
        if edit.edit_set != edit_set.id:
            raise EditConflict(f"edit {edit.id} is not in edit set {edit_set.id}", param="replaces")
    made = question_of(body.text, SCRATCH_EDIT)
    own = [AskedQuestion(text, made.expected if made else ()) for text in body.questions] or ([made] if made else [])
    before = edit_set.snapshot
    without = set(replaced)
    async with (
        asker.turn(project),
        asker.state(before) as base,
        asker.copied(before, added=new.token_ids, without=without, wait=base.edit_set == before.edit_set) as after,
    ):
        nearby = await _nearby(context, asker, project, body, base, without)
        asked = [*own, *nearby]
        texts = [question.text for question in asked]
        told = list(zip(asked, await asker.ask(texts, base, body.max_tokens),
                        await asker.ask(texts, after, body.max_tokens), strict=True))  # fmt: skip
    neighbours = [
        Neighbour(edit=question.source, **_compared(question, old, now)) for question, old, now in told[len(own) :]
    ]
    return PreviewObject(
        edit_set=edit_set.id,
        snapshot=before.id,
        num_tokens=len(new.token_ids),
        questions=[PreviewAnswer(**_compared(*each)) for each in told[: len(own)]],
        neighbours=neighbours,
        changed_neighbours=sum(neighbour.changed for neighbour in neighbours),
        conflicts=await _conflicts(context, project, new, edit_set.id, without=without),
    )


async def _conflicts(
    context: AdminContext, project: str, new: NewEdit, edit_set: str, *, without: Collection[str]
) -> list[ConflictObject] | None:
    """With the edits of the set that serve, without those that the new one takes the place of."""
    if context.asker is None:
        return None
    found = await context.asker.conflicts(edit_set, new.token_ids, new.kind)
    if found is None:
        return None
    others = {each.edit_id: each for each in found if each.edit_id not in without}
    ready = [e.id for e in await context.store.get_edits(project, list(others)) if e.status is EditStatus.READY]
    return [ConflictObject(edit_id=i, kind=others[i].kind, score=others[i].score) for i in ready]


def asker_of(context: AdminContext) -> StateAsker:
    """Raises NotReady where there is no engine to ask."""
    if context.asker is None:
        raise NotReady("no engine answers questions here")
    return context.asker


async def _set_of(context: AdminContext, project: str, body: CreateEdit) -> EditSet:
    """The set that the edit would be in; the default set need not be there yet."""
    name = body.edit_set or context.settings.default_edit_set
    try:
        return await context.store.get_edit_set(project, name)
    except EditSetNotFound:
        if name != context.settings.default_edit_set:
            raise
        return EditSet(NO_SET, project, name, 0, SnapshotRef.empty(NO_SET))


async def _nearby(
    context: AdminContext, asker: StateAsker, project: str, body: PreviewContent, base: SnapshotRef, without: set[str]
) -> list[AskedQuestion]:
    """Questions of the edits that the model itself finds nearest to the new one's words and questions."""
    if not base.num_edits or not body.neighbours:
        return []
    found = await asker.ask([body.text, *body.questions], base, 1, force=True)
    near: dict[str, float] = {}
    for edit_id, weight in (each for answer in found for each in answer.applied):
        near[edit_id] = near.get(edit_id, 0.0) + weight
    ids = [edit for edit in sorted(near, key=lambda edit: -near[edit]) if edit not in without][: body.neighbours]
    edits = await context.store.get_edits(project, ids) if ids else []
    made = [question_of(edit.text, edit.id) for edit in edits if edit.kind == "fact"]
    return [question for question in made if question is not None]


def _compared(question: AskedQuestion, before: StateAnswer, after: StateAnswer) -> dict[str, object]:
    return {
        "question": question.text,
        "expected": list(question.expected),
        "before": before.text,
        "after": after.text,
        "changed": before.text != after.text,
        "weight": round(after.weight_of(SCRATCH_EDIT), 4),
    }


async def _fits_the_store(context: AdminContext, project: str, body: CreateEdit, new: NewEdit) -> None:
    edit_set = await _set_of(context, project, body)
    if edit_set.id != NO_SET:
        await context.store.check_edits(project, edit_set.id, [new])
    elif new.supersedes:
        raise EditNotFound(f"no edit {new.supersedes[0]!r}", param="supersedes")


async def _fits_the_pool(context: AdminContext, project: str, body: CreateEdit, new: NewEdit) -> None:
    await context.room.check(project, len(new.token_ids))


async def _fits_the_queue(context: AdminContext, project: str, body: CreateEdit, new: NewEdit) -> None:
    await context.queue.admit(1, interactive=True)
