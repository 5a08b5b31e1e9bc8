"""From when and until when an edit is in the snapshot: the rule, and the store's clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from incomes_server.edits import EditStatus, NewEdit
from incomes_server.edits.lifecycle import EARLIEST_S, LATEST_S, check_schedule, in_force, next_due
from incomes_server.store import commands
from incomes_server.store.actor import EditStoreActor
from incomes_server.store.check import problems
from incomes_server.store.core import EditStore
from incomes_server.store.edit_sets import get_edit_set
from incomes_server.store.edits import get_edit
from incomes_server.store.log import read_delta
from incomes_server.store.membership import next_due_at
from incomes_server.store.outcomes import pending_jobs

from incomes_plugin.errors import InvalidValue
from tests.server.gists import keys_of, outcome_of
from tests.server.store.test_core import make_ready

NOW = 1_800_000_000


class Clock:
    """The store's time, in the test's hand."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now + 0.9  # a part of a second is not yet the next one


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(database_url, clock):
    store = EditStore(database_url, clock=clock)
    store.write(commands.EnsureEditSet("p", "default"))
    yield store
    store.close()


def at(store, clock, now):
    """Let it become that second."""
    clock.now = now
    store.write(commands.ApplyDue())


def add(store, text="a", request_id=None, **when):
    new = NewEdit(text, (1, 2), **when)
    (edit,) = store.write(commands.AddEdits("p", request_id or text, "default", (new,)))
    return edit


def replace(store, edit, text, **when):
    return store.write(commands.ReplaceEdit("p", text, edit.id, NewEdit(text, (3,), **when)))


def members(store, edit):
    return set(keys_of(store.read(read_delta, edit.edit_set, 0).added))


def status(store, edit, version=None):
    found = store.read(get_edit, "p", edit.id, version)
    return found.status, found.status_reason, found.held


@given(st.integers(-5, 15), st.none() | st.integers(0, 10), st.none() | st.integers(0, 10))
def test_due_is_the_next_second_at_which_the_answer_changes(now, start, end):
    if start is not None and end is not None and start >= end:
        return
    changes = [s for s in range(now + 1, 20) if in_force(start, end, s) != in_force(start, end, s - 1)]
    assert next_due(start, end, now) == (changes[0] if changes else None)


@pytest.mark.parametrize(
    ("start", "end", "param"),
    [
        (EARLIEST_S - 1, None, "effective_from"),
        (LATEST_S + 1, None, "effective_from"),
        (None, LATEST_S + 1, "expires_at"),
        (None, NOW, "expires_at"),
        (NOW + 5, NOW + 5, "effective_from"),
    ],
)
def test_wrong_times_are_refused_by_name(start, end, param):
    with pytest.raises(InvalidValue) as caught:
        check_schedule(start, end, NOW)
    assert caught.value.param == param
    check_schedule(NOW - 5, NOW + 1, NOW)


def test_an_edit_joins_and_leaves_at_its_times(store, clock):
    edit = add(store, effective_from=NOW + 10, expires_at=NOW + 20)
    make_ready(store, edit)
    assert (members(store, edit), status(store, edit)) == (set(), (EditStatus.READY, None, "scheduled"))
    assert store.read(next_due_at) == NOW + 10
    at(store, clock, NOW + 9)
    assert members(store, edit) == set()
    at(store, clock, NOW + 10)
    assert (members(store, edit), status(store, edit)) == ({(edit.id, 1)}, (EditStatus.READY, None, None))
    assert store.read(read_delta, edit.edit_set, 0).until == (NOW + 20,)
    assert store.read(next_due_at) == NOW + 20
    at(store, clock, NOW + 20)
    assert (members(store, edit), status(store, edit)) == (set(), (EditStatus.RETIRED, "expired", None))
    assert store.read(get_edit, "p", edit.id).set_version == 2
    assert (store.read(next_due_at), store.read(problems)) == (None, [])


def test_the_former_version_serves_until_the_new_one_is_in_force(store, clock):
    edit = add(store, "old")
    make_ready(store, edit)
    make_ready(store, replace(store, edit, "new", effective_from=NOW + 10))
    assert members(store, edit) == {(edit.id, 1)}
    at(store, clock, NOW + 10)
    delta = store.read(read_delta, edit.edit_set, 1)
    assert (keys_of(delta.added), delta.removed) == ([(edit.id, 2)], ((edit.id, 1),))
    assert status(store, edit, 1)[0] is EditStatus.SUPERSEDED


def test_an_expired_version_gives_no_way_back_to_the_one_before(store, clock):
    edit = add(store, "old")
    make_ready(store, edit)
    make_ready(store, replace(store, edit, "new", expires_at=NOW + 10))
    at(store, clock, NOW + 10)
    assert members(store, edit) == set()
    assert store.read(problems) == []


def test_the_first_expires_while_the_second_waits_for_its_time(store, clock):
    edit = add(store, "summer", expires_at=NOW + 10)
    make_ready(store, edit)
    make_ready(store, replace(store, edit, "autumn", effective_from=NOW + 20))
    at(store, clock, NOW + 10)
    assert (members(store, edit), status(store, edit)[2]) == (set(), "scheduled")
    at(store, clock, NOW + 20)
    assert members(store, edit) == {(edit.id, 2)}


def test_a_newer_version_in_force_ends_the_plan_of_an_older_one(store, clock):
    edit = add(store, "one")
    make_ready(store, edit)
    make_ready(store, replace(store, edit, "two", effective_from=NOW + 10))
    make_ready(store, replace(store, edit, "three"))
    assert members(store, edit) == {(edit.id, 3)}
    at(store, clock, NOW + 10)
    assert members(store, edit) == {(edit.id, 3)}
    assert status(store, edit, 2)[0] is EditStatus.SUPERSEDED


def test_what_expires_before_it_is_compressed_never_joins(store, clock):
    edit = add(store, expires_at=NOW + 10)
    at(store, clock, NOW + 10)
    assert status(store, edit) == (EditStatus.RETIRED, "expired", None)
    assert store.read(pending_jobs, 9) == []
    make_ready(store, edit)
    assert members(store, edit) == set()


def test_an_outcome_that_comes_after_the_end_and_before_the_clock_does_not_join(store, clock):
    edit = add(store, expires_at=NOW + 10)
    clock.now = NOW + 10
    make_ready(store, edit)
    assert members(store, edit) == set()
    at(store, clock, NOW + 10)
    assert status(store, edit)[:2] == (EditStatus.RETIRED, "expired")


def test_what_a_scheduled_edit_supersedes_stays_until_it_joins(store, clock):
    old = add(store, "old")
    make_ready(store, old)
    new = add(store, "new", supersedes=(old.id,), effective_from=NOW + 10)
    make_ready(store, new)
    assert members(store, old) == {(old.id, 1)}
    at(store, clock, NOW + 10)
    assert members(store, old) == {(new.id, 1)}
    assert status(store, old)[:2] == (EditStatus.SUPERSEDED, f"superseded by {new.id}")


def test_an_expired_edit_frees_its_external_id_and_comes_back_without_the_past(store, clock):
    edit = add(store, external_id="doc-1", effective_from=NOW - 5, expires_at=NOW + 10)
    make_ready(store, edit)
    at(store, clock, NOW + 10)
    back = store.write(commands.RestoreEdit("p", "back", edit.id, 1, (1, 2)))
    assert (back.effective_from, back.expires_at, back.external_id) == (None, None, "doc-1")
    make_ready(store, back)
    assert members(store, edit) == {(edit.id, 2)}


def test_a_retired_edit_that_comes_back_still_expires(store, clock):
    edit = add(store, expires_at=NOW + 10)
    make_ready(store, edit)
    store.write(commands.RetireEdit("p", "r", edit.id))
    back = store.write(commands.RestoreEdit("p", "back", edit.id, 1, (1, 2)))
    assert back.expires_at == NOW + 10
    make_ready(store, back)
    at(store, clock, NOW + 10)
    assert members(store, edit) == set()


def test_another_model_makes_held_gists_anew_too(store, clock):
    store.write(commands.RequeueStale("mf_a"))
    held, other = add(store, "held", effective_from=NOW + 10), add(store, "other")
    make_ready(store, held, other)
    assert store.write(commands.RequeueStale("mf_b")) == 2
    assert store.read(problems) == []
    make_ready(store, held, other, fingerprint="mf_b")
    assert members(store, held) == {(other.id, 1)}
    at(store, clock, NOW + 10)
    assert members(store, held) == {(held.id, 1), (other.id, 1)}


def test_many_at_one_time_take_several_transactions(store, clock, monkeypatch):
    monkeypatch.setattr("incomes_server.store.membership.MOST_DUE", 3)
    edits = [add(store, f"e{i}", expires_at=NOW + 10) for i in range(7)]
    make_ready(store, *edits)
    clock.now = NOW + 10
    rounds = 0
    while store.read(next_due_at) is not None:
        store.write(commands.ApplyDue())
        rounds += 1
    assert (rounds, members(store, edits[0])) == (3, set())
    assert store.read(get_edit_set, "p", "default").snapshot.num_edits == 0


async def test_a_store_that_was_down_at_the_time_begins_without_the_edit(database_url):
    """Before it answers its first call, so that no replica that catches up gets an expired edit."""
    past = EditStore(database_url, clock=lambda: NOW - 1_000_000_000)
    past.write(commands.EnsureEditSet("p", "default"))
    edit = add(past, expires_at=NOW - 999_999_000)
    past.write(commands.RecordOutcomes((outcome_of(edit.id, 1),)))
    assert members(past, edit) == {(edit.id, 1)}
    past.close()
    actor = EditStoreActor(database_url)
    assert (await actor.read(get_edit, "p", edit.id)).status is EditStatus.RETIRED
    actor._store.close()
