"""Test suites and evaluation runs in the database, and the rule that a label waits for a run."""

from __future__ import annotations

import json
from collections.abc import Sequence

from incomes_server.edits import Edit, IdPrefix, new_id
from incomes_server.edits.evaluation import EvalRun, EvalSuite, is_enough
from incomes_server.edits.questions import Asked, AskedQuestion
from incomes_server.store.edit_sets import find_edit_set
from incomes_server.store.labels import refer
from incomes_server.store.log import edits_at, switched_off
from incomes_server.store.pages import page_of
from incomes_server.store.rows import AnyRow, Transaction, load_edits
from incomes_server.store.schema import edits, eval_runs, eval_suites, label_moves, revisions
from incomes_server.store.vault import box_of, newest_box
from sqlalchemy import Connection, delete, insert, select, update

from incomes_plugin.errors import EditsDisabled, EvalRequired, EvalRunNotFound
from incomes_plugin.gist.edit import EditKey
from incomes_plugin.pool.snapshot import SnapshotRef

r, s = eval_runs.c, eval_suites.c


def get_suite(conn: Connection, project: str, edit_set: str) -> EvalSuite:
    """Of a set that has none: nothing given, nothing required. Raises EditSetNotFound."""
    return load_suite(conn, find_edit_set(conn, project, edit_set).id)


def load_suite(conn: Connection, edit_set: str) -> EvalSuite:
    """By the id of the edit set."""
    row = conn.execute(select(eval_suites).where(s.edit_set == edit_set)).one_or_none()
    if row is None:
        return EvalSuite(edit_set)
    plain = box_of(conn, row.data_key).open_text((edit_set, 0), row.questions) or "[]"
    questions = tuple(AskedQuestion(text, tuple(expected)) for text, expected in json.loads(plain))
    return EvalSuite(edit_set, questions, bool(row.generated), bool(row.required), row.least_share, row.updated_at)


def set_suite(tx: Transaction, project: str, suite: EvalSuite) -> list[EditKey]:
    """Replace it as a whole. `suite.edit_set` is a name or an id. Raises EditSetNotFound."""
    found = find_edit_set(tx.conn, project, suite.edit_set, lock=True)
    before = load_suite(tx.conn, found.id)
    tx.conn.execute(delete(eval_suites).where(s.edit_set == found.id))
    questions = json.dumps([[question.text, question.expected] for question in suite.questions])
    box = newest_box(tx.conn, project, tx.now)
    sealed = {"questions": box.seal_text((found.id, 0), questions), "data_key": box.key_id, "project": project}
    own = {"generated": suite.generated, "required": suite.required, "least_share": suite.least_share}
    tx.conn.execute(insert(eval_suites).values(edit_set=found.id, updated_at=tx.now, **sealed, **own))
    tx.note(found.id, _said(before), _said(suite))
    return [(found.id, 0)]


def record_run(tx: Transaction, project: str, snapshot: SnapshotRef, asked: Sequence[Asked]) -> list[EditKey]:
    """Keep what a state answered. Raises EditSetNotFound; EditsDisabled as `check_whole` does."""
    found = find_edit_set(tx.conn, project, snapshot.edit_set, lock=True)
    check_whole(tx.conn, snapshot)
    run_id = new_id(IdPrefix.EVAL_RUN)
    passed = is_enough(asked, load_suite(tx.conn, found.id).least_share)
    results = [[a.question.text, a.question.expected, a.question.source, a.answer] for a in asked]
    box = newest_box(tx.conn, project, tx.now)
    state = {"snapshot": snapshot.id, "version": snapshot.version, "digest": snapshot.digest}
    state["num_edits"] = snapshot.num_edits
    tx.conn.execute(
        insert(eval_runs).values(
            id=run_id, edit_set=found.id, project=project, created_at=tx.now, 
            passed=passed, results=box.seal_text((run_id, 0), json.dumps(results)), data_key=box.key_id, **state,
        )
    )  # fmt: skip
    tx.note(run_id, None, f"{snapshot.id} {'passed' if passed else 'failed'}")
    return [(run_id, 0)]


def load_run(conn: Connection, run_id: str) -> EvalRun:
    """By id."""
    return _run_from(conn, conn.execute(select(eval_runs).where(r.id == run_id)).one())


def get_run(conn: Connection, project: str, run_id: str) -> tuple[EvalRun, EvalRun | None]:
    """A run, and the one of its edit set before it. Raises EvalRunNotFound."""
    row = conn.execute(select(eval_runs).where(r.project == project, r.id == run_id)).one_or_none()
    if row is None:
        raise EvalRunNotFound(f"no evaluation run {run_id!r}")
    earlier = select(eval_runs).where(r.edit_set == row.edit_set, r.seq < row.seq).order_by(r.seq.desc()).limit(1)
    before = conn.execute(earlier).one_or_none()
    return _run_from(conn, row), None if before is None else _run_from(conn, before)


def list_runs(
    conn: Connection, project: str, edit_set: str, *, limit: int, after: str | None, order: str
) -> tuple[list[EvalRun], bool]:
    """A page of an edit set's runs, and whether more follow. Raises EditSetNotFound."""
    query = select(eval_runs).where(r.edit_set == find_edit_set(conn, project, edit_set).id)
    cursor = select(r.seq).where(r.project == project, r.id == after)
    rows, has_more = page_of(conn, query, r.seq, cursor, limit=limit, after=after, order=order)
    return [_run_from(conn, row) for row in rows], has_more


def state_at(conn: Connection, project: str, edit_set: str, to: str) -> SnapshotRef:
    """What `head`, a version, a snapshot's id or a label means. Raises EditSetNotFound and those of `refer`."""
    return refer(conn, find_edit_set(conn, project, edit_set), to)


def newest_at(conn: Connection, snapshot: SnapshotRef, limit: int) -> list[Edit]:
    """The newest edits of a state, newest first, as they are in it."""
    keys, _ = edits_at(conn, snapshot.edit_set, snapshot.version)
    return load_edits(conn, keys[-limit:][::-1])


def check_whole(conn: Connection, snapshot: SnapshotRef) -> None:
    """Raises EditsDisabled: some of a state's edits are switched off. A run without them would say that the state
    passed, and they could be switched on again at a label of it."""
    if not switched_off(conn, snapshot.edit_set):
        return
    if off := snapshot.num_edits - len(edits_at(conn, snapshot.edit_set, snapshot.version)[0]):
        raise EditsDisabled(
            f"{off} edits of snapshot {snapshot.id} are switched off: switch them on, or run a state without them",
            param="to",
        )


def check_evaluated(conn: Connection, label: str, snapshot: SnapshotRef) -> None:
    """Raise unless a label may move to this state. Where it has been before, as far as its moves are remembered, it
    always may: the way back is open.

    Raises:
        EvalRequired: the set's suite is required, and the state's last run did not pass, or there is none.
    """
    required = conn.scalar(select(s.required).where(s.edit_set == snapshot.edit_set))
    if not required or _was_at(conn, label, snapshot):
        return
    runs = select(r.passed).where(r.edit_set == snapshot.edit_set, r.snapshot == snapshot.id)
    passed = conn.scalar(runs.order_by(r.seq.desc()).limit(1))
    if not passed:
        state = "has no evaluation run" if passed is None else "failed its last evaluation run"
        raise EvalRequired(
            f"snapshot {snapshot.id} {state}, and labels of {snapshot.edit_set} move only to states that passed; "
            f'POST /v1/eval_runs {{"edit_set": "{snapshot.edit_set}", "to": "{snapshot.id}"}} first',
            param="to",
        )


def _was_at(conn: Connection, label: str, state: SnapshotRef) -> bool:
    m = label_moves.c
    same = select(revisions.c.version).where(revisions.c.edit_set == state.edit_set, revisions.c.snapshot == state.id)
    there = m.version.in_(same) | (m.version == state.version)
    found = select(m.move).where(m.edit_set == state.edit_set, m.name == label, there).limit(1)
    return conn.scalar(found) is not None


def forget_answers(conn: Connection, edit_id: str) -> None:
    """Of all runs of an erased edit's set: any of them may say what was in it. Whether they passed stays."""
    edit_set = select(edits.c.edit_set).where(edits.c.id == edit_id).scalar_subquery()
    conn.execute(update(eval_runs).where(r.edit_set == edit_set).values(results=""))


def erase_texts(conn: Connection, project: str) -> None:
    """Of all suites and runs of a project."""
    for table, name in ((eval_suites, "questions"), (eval_runs, "results")):
        conn.execute(update(table).where(table.c.project == project).values({name: ""}))


def _opened(conn: Connection, row: AnyRow) -> str:
    return box_of(conn, row.data_key).open_text((row.id, 0), row.text)


def _run_from(conn: Connection, row: AnyRow) -> EvalRun:
    plain = box_of(conn, row.data_key).open_text((row.id, 0), row.results) or "[]"
    asked = tuple(
        Asked(AskedQuestion(text, tuple(expected), source), answer)
        for text, expected, source, answer in json.loads(plain)
    )
    snapshot = SnapshotRef(row.edit_set, row.version, row.digest, row.num_edits)
    return EvalRun(row.id, row.edit_set, snapshot, row.created_at, bool(row.passed), asked)


def _said(suite: EvalSuite) -> str:
    share = f"at least {suite.least_share:g} right"
    return f"{len(suite.questions)} questions, generated {suite.generated}, required {suite.required}, {share}"
