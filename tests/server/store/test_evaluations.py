"""Suites, runs and the rule that a label waits for a run, on both databases."""

import pytest
from incomes_server.auth.master_key import MasterKey
from incomes_server.edits import NewEdit
from incomes_server.edits.evaluation import EvalSuite
from incomes_server.edits.questions import Asked, AskedQuestion
from incomes_server.store import commands
from incomes_server.store.core import EditStore
from incomes_server.store.evaluations import get_run, get_suite, list_runs, newest_at, state_at
from incomes_server.store.log import blobs_of, edits_at

from incomes_plugin.errors import EditsDisabled, EditSetNotFound, EvalRequired, EvalRunNotFound
from tests.server.gists import keys_of, outcome_of

QUESTION = AskedQuestion("What is the warranty?", ("36 months", "three years"))


@pytest.fixture
def edits(store):
    store.write(commands.EnsureEditSet("p", "default"))
    new = tuple(NewEdit(f"text {i}", (1, 2, 3)) for i in range(3))
    added = store.write(commands.AddEdits("p", "add", "default", new))
    for edit in added:
        store.write(commands.RecordOutcomes((outcome_of(edit.id, 1),)))
    return added


def run(store, state, answer, request_id):
    return store.write(commands.RecordEvalRun("p", request_id, state, (Asked(QUESTION, answer),)))


def test_a_suite_is_replaced_as_a_whole_and_belongs_to_its_project(store, edits):
    assert store.read(get_suite, "p", "default") == EvalSuite(edits[0].edit_set)
    suite = EvalSuite("default", (QUESTION,), generated=False, required=True, least_share=0.5)
    command = commands.SetEvalSuite("p", "s", suite)
    stored = store.write(command)
    assert (stored.questions, stored.generated, stored.required, stored.least_share) == ((QUESTION,), False, True, 0.5)
    assert store.write(command) == stored == store.read(get_suite, "p", "default")
    with pytest.raises(EditSetNotFound):
        store.read(get_suite, "q", edits[0].edit_set)
    with pytest.raises(EditSetNotFound):
        store.write(commands.SetEvalSuite("q", "s", EvalSuite(edits[0].edit_set)))


def test_a_run_keeps_answers_and_knows_the_one_before(store, edits):
    state = store.read(state_at, "p", "default", "head")
    first = run(store, state, "It is 36 months.", "r1")
    assert (first.passed, first.num_right, first.snapshot) == (True, 1, state)
    assert run(store, state, "It is 36 months.", "r1") == first, "sent twice, kept once"
    second = run(store, state, "No idea", "r2")
    assert store.read(get_run, "p", second.id) == (second, first)
    assert store.read(get_run, "p", first.id) == (first, None)
    assert store.read(list_runs, "p", "default", limit=1, after=None, order="desc") == ([second], True)
    with pytest.raises(EvalRunNotFound):
        store.read(get_run, "q", first.id)


def test_a_label_waits_for_a_run_that_passed_on_its_very_state(store, edits):
    def move(to, request_id):
        return store.write(commands.MoveLabel("p", request_id, "default", "production", to))

    move("1", "m0")
    store.write(commands.SetEvalSuite("p", "s", EvalSuite("default", (QUESTION,), required=True)))
    state = store.read(state_at, "p", "default", "2")
    with pytest.raises(EvalRequired, match="no evaluation run"):
        move("2", "m1")
    run(store, state, "wrong", "r1")
    with pytest.raises(EvalRequired, match="failed its last"):
        move("2", "m2")
    run(store, state, "36 months", "r2")
    assert move("2", "m3").snapshot == state
    with pytest.raises(EvalRequired):
        move("head", "m4")
    assert move(state.id, "m5").snapshot == state


def test_the_way_back_is_open_without_a_run_also_where_a_suite_became_required_later(store, edits):
    def move(name, to, request_id):
        return store.write(commands.MoveLabel("p", request_id, "default", name, to))

    first = move("production", "2", "m0")
    store.write(commands.SetEvalSuite("p", "s", EvalSuite("default", (QUESTION,), required=True)))
    head = store.read(state_at, "p", "default", "head")
    run(store, head, "36 months", "r1")
    assert move("production", "head", "m1").previous == first.snapshot
    run(store, first.snapshot, "wrong", "r2")
    assert move("production", first.snapshot.id, "m2").snapshot == first.snapshot, "back, whatever a run says of it"
    run(store, head, "wrong", "r3")
    assert move("production", "head", "m3").snapshot == head, "it was there too"
    with pytest.raises(EvalRequired):
        move("production", "1", "m4")
    with pytest.raises(EvalRequired):
        move("staging", "2", "m5")
    store.write(commands.RetireEdit("p", "out", edits[2].id))
    assert move("production", "head", "m6").snapshot.id == first.snapshot.id, "the same content under a later version"


def test_a_state_with_an_edit_that_is_switched_off_has_no_run(store, edits):
    """It would pass without the edit, which comes back when it is switched on."""
    state = store.read(state_at, "p", "default", "head")
    earlier = store.read(state_at, "p", "default", "2")
    store.write(commands.SwitchEdit("p", "off", edits[2].id, False))
    with pytest.raises(EditsDisabled, match="1 edits of snapshot"):
        run(store, state, "36 months", "r1")
    assert run(store, earlier, "36 months", "r2").passed, "it is not in this one"
    now = store.read(state_at, "p", "default", "head")
    assert (now.num_edits, run(store, now, "36 months", "r3").passed) == (2, True)
    store.write(commands.SwitchEdit("p", "on", edits[2].id, True))
    assert run(store, state, "36 months", "r4").passed


def test_what_is_erased_is_in_no_answer(store, edits):
    first = run(store, store.read(state_at, "p", "default", "head"), "It is 36 months.", "r1")
    store.write(commands.EraseEdit("p", "e", edits[0].id))
    found, _ = store.read(get_run, "p", first.id)
    assert (found.passed, found.asked) == (True, ())


def test_a_state_of_the_past_is_read_whole(store, edits):
    state = store.read(state_at, "p", "default", "2")
    keys, num_tokens = store.read(edits_at, state.edit_set, state.version)
    assert (keys, num_tokens) == ([(edit.id, 1) for edit in edits[:2]], 6)
    blobs, ages, until = store.read(blobs_of, state, keys)
    assert (keys_of(blobs), until) == (keys, (None, None))
    assert ages == tuple(sorted(ages))
    assert [edit.id for edit in store.read(newest_at, state, 1)] == [edits[1].id]


def test_texts_are_encrypted_at_rest_follow_a_new_key_and_go_with_an_erased_one(database_url):
    store = EditStore(database_url, masters=[MasterKey(bytes(range(32)))])
    store.write(commands.EnsureEditSet("p", "default"))
    store.write(commands.SetEvalSuite("p", "s", EvalSuite("default", (QUESTION,))))
    first = run(store, store.read(state_at, "p", "default", "head"), "It is 36 months.", "r1")

    def stored(conn):
        tables = ("eval_suites", "eval_runs")
        rows = [row for table in tables for row in conn.exec_driver_sql(f"SELECT * FROM {table}")]
        return [value for row in rows for value in row if isinstance(value, str)]

    assert not [value for value in store.read(stored) if "months" in value or "warranty" in value]
    store.write(commands.RotateDataKey("p", "rotate"))
    while store.write(commands.Reseal(10)).moved:
        pass
    assert store.read(get_run, "p", first.id) == (first, None)
    assert store.read(get_suite, "p", "default").questions == (QUESTION,)
    store.write(commands.EraseDataKeys("p", "erase"))
    assert store.read(get_run, "p", first.id)[0].asked == ()
    store.close()
