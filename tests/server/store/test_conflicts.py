"""What becomes of edits that conflict with others of their set, and that none is missed: the store's rules."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from incomes_server.edits import ConflictWith, EditStatus, NewEdit, OnConflict
from incomes_server.store import commands
from incomes_server.store.check import problems
from incomes_server.store.compared import MOST_BESIDE
from incomes_server.store.core import EditStore
from incomes_server.store.edits import get_edit, list_edits
from incomes_server.store.log import read_delta

from incomes_plugin.gist.edit import Compared, FoundConflict
from tests.server.gists import keys_of, outcome_of
from tests.server.store.test_core import make_ready
from tests.server.store.test_machine import in_memory
from tests.server.store.test_superseded import members
from tests.server.store.test_switches import as_key

REJECT, SUPERSEDE, KEEP, FLAG = OnConflict.REJECT, OnConflict.SUPERSEDE, OnConflict.KEEP_BOTH, OnConflict.FLAG


def write(store, text, policy=None, *, request_id=None, edit_set="default", project="p", **fields):
    new = NewEdit(text, (7, 8), on_conflict=policy, **fields)
    store.write(commands.EnsureEditSet(project, edit_set))
    (edit,) = store.write(commands.AddEdits(project, request_id or text, edit_set, (new,)))
    return edit


def compared(edit, *conflicts, position=99, beside=()):
    """An outcome; `conflicts` are edits that it was found to contradict."""
    found = tuple(FoundConflict(other.id, other.version, "contradiction", 0.9) for other in conflicts)
    outcome = outcome_of(edit.id, edit.version)
    keys = tuple((other.id, other.version) for other in beside)
    return outcome.__class__(*outcome.edit, outcome.blob, None, Compared(position, keys, found))


def record(store, *outcomes):
    return store.write(commands.RecordOutcomes(outcomes))


def now(store, edit):
    return store.read(get_edit, edit.project, edit.id)


def test_by_default_both_join_and_say_so(store):
    old, new = write(store, "old"), write(store, "new")
    record(store, compared(old))
    record(store, compared(new, old))
    assert members(store, old) == {(old.id, 1), (new.id, 1)}
    assert now(store, new).conflicts == (ConflictWith(old.id, "contradiction", 0.9),)
    assert now(store, old).conflicts == (ConflictWith(new.id, "contradiction", 0.9),), "whoever looks at either sees it"
    assert (now(store, new).conflict_check, now(store, new).on_conflict) == ("done", FLAG)

    def listed(conflict):
        page = {"edit_set": None, "status": None, "limit": 9, "after": None, "order": "asc"}
        return [edit.id for edit in store.read(list_edits, "p", conflict=conflict, **page)[0]]

    apart = write(store, "apart")
    assert (listed(True), listed(False), len(listed(None))) == ([old.id, new.id], [apart.id], 3)
    store.write(commands.RetireEdit("p", "r", old.id))
    assert (now(store, new).conflicts, listed(True)) == ((), []), "a retired edit conflicts with nothing"


def test_reject_refuses_and_leaves_all_as_it_was(store):
    old, new = write(store, "old"), write(store, "new", REJECT, external_id="x")
    record(store, compared(old))
    record(store, compared(new, old))
    refused = now(store, new)
    assert (refused.status, refused.gist_bytes, refused.set_version) == (EditStatus.CONFLICTED, 0, None)
    assert f"contradicts {old.id}" in refused.status_reason
    assert refused.conflicts == (ConflictWith(old.id, "contradiction", 0.9),)
    assert (members(store, old), now(store, old).conflicts) == ({(old.id, 1)}, ())
    assert record(store, compared(new)) == [], "it waits no more"
    assert now(store, new).status is EditStatus.CONFLICTED
    store.write(commands.RetireEdit("p", "r", new.id))
    write(store, "again", external_id="x")
    assert store.read(problems) == []


def test_supersede_changes_both_in_one_step(store):
    old, new = write(store, "old"), write(store, "new", SUPERSEDE)
    record(store, compared(old))
    record(store, compared(new, old))
    delta = store.read(read_delta, old.edit_set, 1)
    assert (keys_of(delta.added), delta.removed, delta.snapshot.version) == ([(new.id, 1)], ((old.id, 1),), 2)
    assert now(store, old).status_reason == f"superseded by {new.id}"
    assert (now(store, new).supersedes, now(store, new).conflicts) == ((old.id,), ())
    assert store.read(problems) == []


def test_a_replacement_supersedes_what_it_conflicts_with(store):
    old, other = write(store, "old"), write(store, "other")
    make_ready(store, old, other)
    again = store.write(commands.ReplaceEdit("p", "r", other.id, NewEdit("b", (1,), on_conflict=SUPERSEDE)))
    record(store, compared(again, old))
    assert members(store, old) == {(other.id, 2)}
    assert now(store, old).status is EditStatus.SUPERSEDED
    assert store.read(problems) == []


def test_a_refused_replacement_leaves_the_version_before_in_service(store):
    old, other = write(store, "old"), write(store, "other")
    make_ready(store, old, other)
    again = store.write(commands.ReplaceEdit("p", "r", other.id, NewEdit("b", (1,), on_conflict=REJECT)))
    record(store, compared(again, old))
    assert (now(store, other).version, now(store, other).status) == (2, EditStatus.CONFLICTED)
    assert members(store, old) == {(old.id, 1), (other.id, 1)}


def test_an_edit_is_in_no_conflict_with_its_own_former_version(store):
    edit = write(store, "old", REJECT)
    record(store, compared(edit))
    again = store.write(commands.ReplaceEdit("p", "r", edit.id, NewEdit("new", (1,), on_conflict=REJECT)))
    record(store, compared(again, edit))
    assert members(store, edit) == {(edit.id, 2)}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize(("policy", "left"), [(REJECT, 0), (SUPERSEDE, 1)])
def test_of_two_that_come_together_the_later_written_decides(store, order, policy, left):
    """Whichever of them the engine compared with the other."""
    edits = [write(store, "first", policy), write(store, "second", policy)]
    one, two = edits[order[0]], edits[order[1]]
    assert record(store, compared(one), compared(two, one, beside=[one])) == []
    assert members(store, one) == {(edits[left].id, 1)}
    other = now(store, edits[1 - left]).status
    assert other is (EditStatus.CONFLICTED if policy is REJECT else EditStatus.SUPERSEDED)
    assert store.read(problems) == []


def test_an_edit_that_comes_late_gives_way_to_a_later_written_one(store):
    first, second = write(store, "first"), write(store, "second", SUPERSEDE)
    record(store, compared(second))
    record(store, compared(first, second))
    assert members(store, first) == {(second.id, 1)}
    assert now(store, first).status is EditStatus.SUPERSEDED


def test_keep_both_is_not_compared_and_others_are_compared_with_it(store):
    old, new = write(store, "old", KEEP), write(store, "new")
    record(store, outcome_of(old.id, 1))
    assert (now(store, old).conflict_check, now(store, old).status) == (None, EditStatus.READY)
    record(store, compared(new, old))
    assert now(store, new).conflicts[0].edit_id == old.id


@pytest.mark.parametrize("policy", list(OnConflict))
def test_where_nobody_could_compare_it_is_said_and_nothing_is_superseded_or_let_in_unchecked(store, policy):
    edit = write(store, "a", policy)
    record(store, outcome_of(edit.id, 1))
    found = now(store, edit)
    if policy in (REJECT, SUPERSEDE):
        assert (found.status, found.conflict_check) == (EditStatus.CONFLICTED, "unavailable")
        assert "could not be checked" in found.status_reason
    else:
        assert (found.status, found.conflict_check) == (EditStatus.READY, None if policy is KEEP else "unavailable")


def test_a_set_has_a_policy_of_its_own(store):
    store.write(commands.CreateEditSet("p", "s", "strict", on_conflict=REJECT))
    old, new = (write(store, text, edit_set="strict") for text in ("old", "new"))
    lax = write(store, "lax", FLAG, edit_set="strict")
    record(store, compared(old))
    record(store, compared(new, old), compared(lax, old, beside=[new]))
    assert [now(store, edit).status for edit in (old, new, lax)] == [
        EditStatus.READY, EditStatus.CONFLICTED, EditStatus.READY
    ]  # fmt: skip


def test_what_it_was_not_compared_with_is_named_until_it_is(store):
    """Those that joined after the state that the engine knows, and those that are ready and in no snapshot."""
    before, joined = write(store, "before"), write(store, "joined")
    record(store, compared(before))
    record(store, compared(joined))
    scheduled = write(store, "scheduled", effective_from=4_000_000_000)
    off = write(store, "off")
    record(store, compared(scheduled), compared(off, beside=[scheduled]))
    store.write(commands.SwitchEdit("p", "switch", off.id, False))
    new = write(store, "new", REJECT)
    (again,) = record(store, compared(new, position=1))
    assert (again.edit, again.edit_set, again.behind) == ((new.id, 1), new.edit_set, False)
    assert set(again.others) == {(joined.id, 1), (scheduled.id, 1), (off.id, 1)}
    assert now(store, new).status is EditStatus.PENDING
    assert record(store, compared(new, scheduled, position=1, beside=[joined, scheduled, off])) == []
    assert now(store, new).status is EditStatus.CONFLICTED


def test_behind_one_that_is_compared_again_all_wait(store):
    """So that of two in conflict it is always the later written that decides."""
    kept, first, second = write(store, "kept", KEEP), write(store, "first", REJECT), write(store, "second", REJECT)
    again = record(store, outcome_of(kept.id, 1), compared(first), compared(second, first, beside=[first, kept]))
    assert [each.edit for each in again] == [(first.id, 1), (second.id, 1)]
    assert again[0].others == ((kept.id, 1),)
    record(store, compared(first, beside=[kept]), compared(second, first, beside=[first, kept]))
    assert members(store, kept) == {(kept.id, 1), (first.id, 1)}


def test_an_engine_that_is_far_behind_catches_up_first(store):
    store.write(commands.EnsureEditSet("p", "default"))
    new = NewEdit("a", (1,))
    many = store.write(commands.AddEdits("p", "many", "default", (new,) * (MOST_BESIDE + 2)))
    record(store, *[outcome_of(edit.id, 1) for edit in many])
    late = write(store, "late")
    (again,) = record(store, compared(late, position=0))
    assert (again.behind, len(again.others)) == (True, MOST_BESIDE)
    assert record(store, compared(late, position=1)) == []


def test_more_that_wait_than_are_compared_with_is_said(store):
    store.write(commands.CreateEditSet("p", "s", "careful", two_person=True))
    new = NewEdit("a", (1,))
    many = store.write(commands.AddEdits("p", "many", "careful", (new,) * (MOST_BESIDE + 2)))
    record(store, *[outcome_of(edit.id, 1) for edit in many])
    late = write(store, "late", edit_set="careful")
    (again,) = record(store, compared(late))
    assert again.others == tuple((edit.id, 1) for edit in reversed(many[2:])), "the newest"
    record(store, compared(late, beside=many))
    assert now(store, late).conflict_check == "partial"


def test_two_persons_and_a_conflict(store):
    """What an unapproved edit supersedes stays until somebody approves it."""
    store.write(commands.CreateEditSet("p", "s", "default", two_person=True, on_conflict=SUPERSEDE))

    def approve(edit):
        as_key(store, "lee", commands.ApproveEdit("p", f"approve {edit.id}", edit.id))

    old, new = write(store, "old"), write(store, "new")
    record(store, compared(old))
    approve(old)
    record(store, compared(new, old))
    assert (members(store, old), now(store, new).held) == ({(old.id, 1)}, "approval")
    assert now(store, new).conflicts[0].edit_id == old.id
    approve(new)
    assert members(store, old) == {(new.id, 1)}
    refused = write(store, "refused", REJECT)
    record(store, compared(refused, new))
    assert now(store, refused).status is EditStatus.CONFLICTED


def test_edits_that_are_gone_are_no_conflict(store):
    """Retired, replaced, expired or elsewhere: whatever the engine still knew of them."""
    gone = {name: write(store, name) for name in ("retired", "replaced", "superseded")}
    make_ready(store, *gone.values())
    store.write(commands.RetireEdit("p", "r", gone["retired"].id))
    make_ready(store, store.write(commands.ReplaceEdit("p", "v2", gone["replaced"].id, NewEdit("x", (1,)))))
    make_ready(store, write(store, "in its place", supersedes=(gone["superseded"].id,)))
    expiring = write(store, "expiring", expires_at=4_000_000_000)
    elsewhere, foreign = write(store, "e", edit_set="other"), write(store, "f", project="q")
    waiting = write(store, "waiting")
    make_ready(store, expiring, elsewhere, foreign)
    store._clock = lambda: 4_000_000_000
    new = write(store, "new", REJECT)
    assert record(store, compared(new, *gone.values(), expiring, elsewhere, foreign, waiting)) == []
    assert (now(store, new).status, now(store, new).conflicts) == (EditStatus.READY, ())


def test_nobody_hears_of_the_edits_of_others(store):
    mine, foreign = write(store, "mine"), write(store, "theirs", project="q")
    record(store, compared(foreign))
    record(store, compared(mine, foreign))
    assert now(store, mine).conflicts == now(store, foreign).conflicts == ()


def test_another_model_compares_anew_and_the_order_of_writing_still_decides(store):
    store.write(commands.RequeueStale("mf_a"))
    old, new = write(store, "old", REJECT), write(store, "new")
    record(store, compared(old))
    record(store, compared(new, old))
    store.write(commands.RequeueStale("mf_b"))

    def anew(edit, *conflicts):
        made = compared(edit, *conflicts)
        return made.__class__(*made.edit, outcome_of(*made.edit, fingerprint="mf_b").blob, None, made.compared)

    record(store, anew(new))
    record(store, anew(old, new))
    assert members(store, old) == {(old.id, 1), (new.id, 1)}, "an edit that served is not refused for a later one"
    assert len(now(store, old).conflicts) == 1


def expected_of(policies):
    """Which of edits that all contradict one another are left, when each comes after the one before."""
    left = []
    for number, policy in enumerate(policies):
        if policy is REJECT and left:
            continue
        left = [number] if policy is SUPERSEDE else [*left, number]
    return left


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.sampled_from(OnConflict), min_size=1, max_size=8),
    st.lists(st.tuples(st.integers(1, 4), st.booleans()), min_size=8, max_size=8),
)
def test_whatever_batches_the_compressor_makes_the_result_is_the_same(policies, batches):
    """Of each batch: how many edits, and whether the engine has applied all changes before it."""
    with in_memory() as url:
        store = EditStore(url)
        edits = [write(store, f"edit {number}", policy) for number, policy in enumerate(policies)]
        waiting, engine = list(edits), (0, set())
        for size, caught_up in batches:
            batch, waiting = waiting[:size], waiting[size:]
            if caught_up:
                delta = store.read(read_delta, edits[0].edit_set, 0)
                engine = (delta.snapshot.version, set(keys_of(delta.added)))
            as_a_worker(store, edits, batch, *engine)
        serving = store.read(read_delta, edits[0].edit_set, 0).added
        assert set(keys_of(serving)) == {(edits[number].id, 1) for number in expected_of(policies)}
        assert store.read(problems) == []
        store.close()


def as_a_worker(store, edits, batch, position, held):
    """Compare with what the engine holds at that position, and record; again with what the store names as missing."""
    known, batch = [], {(edit.id, 1): edit for edit in batch}
    for _ in range(4):
        outcomes = []
        for number, edit in enumerate(batch.values()):
            before = [*known, *list(batch.values())[:number]]
            others = [o for o in edits if o.id != edit.id and ((o.id, 1) in held or o in before)]
            full = compared(edit, *others, position=position, beside=before)
            outcomes.append(outcome_of(edit.id, 1) if edit.on_conflict is KEEP else full)
        again = {each.edit: each.others for each in record(store, *outcomes)} if outcomes else {}
        batch = {key: edit for key, edit in batch.items() if key in again}
        known += [edit for edit in edits if any((edit.id, 1) in others for others in again.values())]
    assert not batch


def test_of_edits_that_take_each_others_place_in_a_ring_the_one_written_last_is_left(store):
    """A replacement may supersede what was to supersede its first version."""
    start, edits = 4_000_000_000, []
    for text in ("first", "second", "third"):
        edits.append(write(store, text, SUPERSEDE, effective_from=start))
        record(store, compared(edits[-1], *edits[-2:-1], beside=edits[:-1]))
    first, second, third = edits
    new = NewEdit("again", (1,), on_conflict=SUPERSEDE, effective_from=start)
    again = store.write(commands.ReplaceEdit("p", "r", first.id, new))
    record(store, compared(again, third, beside=(second, third)))
    store._clock = lambda: start
    store.write(commands.ApplyDue())
    assert members(store, third) == {(first.id, 2)}
    assert now(store, third).status_reason == f"superseded by {first.id}"
    assert store.read(problems) == []


def test_of_two_that_take_each_others_place_only_the_later_written_does(store):
    later, still_later = 4_000_000_000, 4_000_000_010
    first = write(store, "first", SUPERSEDE, effective_from=still_later)
    record(store, compared(first))
    second = write(store, "second", SUPERSEDE, effective_from=later)
    record(store, compared(second, first, beside=(first,)))
    new = NewEdit("again", (1,), on_conflict=SUPERSEDE, effective_from=still_later)
    record(store, compared(store.write(commands.ReplaceEdit("p", "r", first.id, new)), second, beside=(second,)))
    for time, serving in ((later, (second.id, 1)), (still_later, (first.id, 2))):
        store._clock = lambda time=time: time
        store.write(commands.ApplyDue())
        assert members(store, first) == {serving}
    assert store.read(problems) == []
