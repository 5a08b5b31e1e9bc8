"""EditProvenance of an edit, and edits that take the place of others in one step of the snapshot."""

import pytest
from incomes_server.edits import EditProvenance, EditStatus, NewEdit
from incomes_server.store import commands
from incomes_server.store.check import problems
from incomes_server.store.edit_sets import get_edit_set
from incomes_server.store.edits import get_edit, list_edits
from incomes_server.store.log import PAGE_BYTES, read_delta

from incomes_plugin.errors import EditConflict, EditNotFound
from incomes_plugin.gist.edit import Captured
from tests.server.gists import keys_of, outcome_of
from tests.server.store.test_core import add, make_ready

SAID = EditProvenance("https://erp.example/z9", "erp-9", "kim", "the contract of May")


def superseding(store, *named, request_id="new", text="new"):
    new = NewEdit(text, (7, 8), supersedes=tuple(edit.id for edit in named))
    (edit,) = store.write(commands.AddEdits("p", request_id, "default", (new,)))
    return edit


def members(store, edit):
    return set(keys_of(store.read(read_delta, edit.edit_set, 0).added))


def test_provenance_belongs_to_a_version_and_filters_the_list(store):
    add(store, "other")
    new = (NewEdit("a", (1,), provenance=SAID),)
    (edit,) = store.write(commands.AddEdits("p", "1", "default", new))
    assert edit.provenance == SAID
    store.write(commands.ReplaceEdit("p", "2", edit.id, NewEdit("b", (2,), provenance=EditProvenance(author="lee"))))
    assert store.read(get_edit, "p", edit.id, 1).provenance == SAID

    def found(project="p", **by):
        page, _ = store.read(list_edits, project, edit_set=None, status=None, limit=9, after=None, order="asc", **by)
        return [item.id for item in page]

    assert found(author="lee") == [edit.id]
    assert found(author="kim") == found(document_id="erp-9") == found("q", author="lee") == []
    assert len(found()) == 2


def test_both_change_in_one_step(store):
    old, kept = add(store, "old", "kept")
    make_ready(store, old, kept)
    new = superseding(store, old)
    assert members(store, old) == {(old.id, 1), (kept.id, 1)}, "the old one serves until the new one is ready"
    make_ready(store, new)
    delta = store.read(read_delta, old.edit_set, 1)
    assert (set(keys_of(delta.added)), delta.removed, delta.snapshot.version) == ({(new.id, 1)}, ((old.id, 1),), 2)
    gone = store.read(get_edit, "p", old.id)
    assert (gone.status, gone.status_reason, gone.set_version) == (
        EditStatus.SUPERSEDED, f"superseded by {new.id}", 2)  # fmt: skip
    with pytest.raises(EditConflict):
        store.write(commands.ReplaceEdit("p", "late", old.id, NewEdit("x", (1,))))
    assert store.read(problems) == []


def test_a_new_edit_that_fails_or_is_retired_supersedes_nothing(store):
    (old,) = add(store, "old")
    make_ready(store, old)
    broken, withdrawn = superseding(store, old, request_id="1"), superseding(store, old, request_id="2")
    store.write(commands.RecordOutcomes((Captured(broken.id, 1, None, error="poisoned"),)))
    store.write(commands.RetireEdit("p", "r", withdrawn.id))
    make_ready(store, withdrawn)
    assert members(store, old) == {(old.id, 1)}
    assert store.read(get_edit, "p", old.id).status is EditStatus.READY


def test_one_that_waits_never_joins(store):
    (old,) = add(store, "old")
    new = superseding(store, old)
    make_ready(store, old, new)
    assert members(store, old) == {(new.id, 1)}
    (late,) = add(store, "late", request_id="l")
    later = superseding(store, late, request_id="later")
    make_ready(store, later)
    make_ready(store, late)
    assert members(store, old) == {(new.id, 1), (later.id, 1)}
    assert store.read(get_edit, "p", late.id).status is EditStatus.SUPERSEDED
    assert store.read(problems) == []


def test_a_superseded_edit_that_never_joined_passes_on_what_it_names(store):
    (first,) = add(store, "first")
    make_ready(store, first)
    second = superseding(store, first, request_id="2")
    third = superseding(store, second, request_id="3")
    make_ready(store, third)
    make_ready(store, second)
    assert members(store, first) == {(third.id, 1)}
    assert store.read(get_edit, "p", first.id).status_reason == f"superseded by {third.id}"


def test_of_two_that_come_together_the_one_superseded_passes_on_what_it_names(store):
    first, other = add(store, "first", "other")
    make_ready(store, first)
    second = superseding(store, first, other, request_id="2")
    third = superseding(store, second, request_id="3")
    make_ready(store, other, second, third)
    assert members(store, first) == {(third.id, 1)}
    statuses = {store.read(get_edit, "p", edit.id).status for edit in (first, other, second)}
    assert statuses == {EditStatus.SUPERSEDED}


def test_a_replacement_before_the_first_joining_keeps_the_promise(store):
    (old,) = add(store, "old")
    make_ready(store, old)
    new = superseding(store, old)
    again = store.write(commands.ReplaceEdit("p", "r", new.id, NewEdit("better", (3,))))
    make_ready(store, again)
    assert members(store, old) == {(new.id, 2)}


def test_one_superseded_by_a_gist_of_another_page_is_not_added(store):
    """A version of the log holds one page of gists; what a later page supersedes must not join with an earlier one."""
    old, *filler = add(store, "old", "b", "c")
    new = superseding(store, old)
    tokens = PAGE_BYTES // 2 // 16
    outcomes = [outcome_of(e.id, 1, num_tokens=tokens) for e in (old, *filler, new)]
    store.write(commands.RecordOutcomes(tuple(outcomes)))
    assert store.read(get_edit_set, "p", "default").snapshot.version > 1, "several pages"
    assert members(store, old).isdisjoint({(old.id, 1)})
    assert store.read(problems) == []


def test_another_model_makes_the_gists_anew_and_nothing_leaves_twice(store):
    store.write(commands.RequeueStale("mf_a"))
    (old,) = add(store, "old")
    make_ready(store, old)
    new = superseding(store, old)
    make_ready(store, new)
    store.write(commands.RequeueStale("mf_b"))
    make_ready(store, new, fingerprint="mf_b")
    assert members(store, old) == {(new.id, 1)}
    assert store.read(get_edit, "p", old.id).set_version == 2
    assert store.read(problems) == []


def test_only_edits_of_the_same_set_that_serve_can_be_named(store):
    (old,) = add(store, "old")
    (elsewhere,) = add(store, "e", edit_set="other", request_id="o")
    (foreign,) = add(store, "f", project="q")
    for edit in (elsewhere, foreign):
        with pytest.raises(EditNotFound) as caught:
            superseding(store, edit)
        assert caught.value.param == "supersedes"
    store.write(commands.RetireEdit("p", "r", old.id))
    with pytest.raises(EditConflict):
        superseding(store, old)
