"""Kill switches of an edit, a set and the server, and the second person: what replicas are told."""

import pytest
from incomes_server.auth.principal import Principal
from incomes_server.edits import EditStatus, NewEdit
from incomes_server.store import commands
from incomes_server.store.check import problems
from incomes_server.store.core import EditStore
from incomes_server.store.edit_sets import get_edit_set
from incomes_server.store.edits import get_edit
from incomes_server.store.log import read_delta
from incomes_server.store.switches import is_server_on

from incomes_plugin.errors import EditConflict, EditNotFound, EditSetNotFound, EtagMismatch, IncomesError
from tests.server.gists import keys_of
from tests.server.store.test_core import add, make_ready


def as_key(store, key, command):
    (result,) = store.commit([commands.Sent(command, commands.Origin(Principal("p", key, frozenset())))]).results
    if isinstance(result, IncomesError):
        raise result
    return result


def head(store, edit_set="default", project="p"):
    return store.read(get_edit_set, project, edit_set)


def told(store, edit_set, base=0):
    """What a replica at that version is told: members, barred edits, whose switch is off, the version it comes to."""
    delta = store.read(read_delta, edit_set, base)
    return set(keys_of(delta.added)), delta.barred, delta.off, delta.snapshot.version


def switch(store, edit, on, request_id):
    return store.write(commands.SwitchEdit("p", request_id, edit.id, on))


def test_a_disabled_edit_leaves_and_comes_back_as_it_was(store):
    edit, other = add(store, "a", "b")
    make_ready(store, edit, other)
    off = switch(store, edit, False, "1")
    assert (off.status, off.held, off.version) == (EditStatus.READY, "disabled", 1)
    assert told(store, edit.edit_set) == ({(other.id, 1)}, (edit.id,), None, 2)
    assert switch(store, edit, False, "again") == off
    assert head(store).snapshot.version == 2, "once is enough"
    on = switch(store, edit, True, "2")
    assert on.held is None
    assert told(store, edit.edit_set) == ({(edit.id, 1), (other.id, 1)}, (), None, 3)
    assert store.read(problems) == []


def test_replicas_hear_of_a_switch_that_changes_no_snapshot(store):
    """A label may still point at a state with the edit: it has to be barred there."""
    (edit,) = add(store, "a")
    before = head(store).snapshot
    switch(store, edit, False, "1")
    after = head(store).snapshot
    assert (after.id, after.version) == (before.id, before.version + 1)
    assert told(store, edit.edit_set, before.version) == (set(), (edit.id,), None, after.version)
    make_ready(store, edit)
    assert store.read(get_edit, "p", edit.id).held == "disabled"
    assert told(store, edit.edit_set)[0] == set()


def test_what_comes_meanwhile_is_there_when_it_is_switched_on(store):
    (edit,) = add(store, "old")
    make_ready(store, edit)
    switch(store, edit, False, "1")
    make_ready(store, store.write(commands.ReplaceEdit("p", "r", edit.id, NewEdit("new", (3,)))))
    assert told(store, edit.edit_set)[0] == set()
    switch(store, edit, True, "2")
    assert told(store, edit.edit_set)[0] == {(edit.id, 2)}
    assert store.read(get_edit, "p", edit.id, 1).status is EditStatus.SUPERSEDED


def test_a_retired_edit_that_a_label_still_has_is_switched_off_too(store):
    (edit,) = add(store, "a")
    make_ready(store, edit)
    store.write(commands.MoveLabel("p", "label", "default", "production", "head"))
    store.write(commands.RetireEdit("p", "x", edit.id))
    before = head(store).snapshot.version
    switch(store, edit, False, "1")
    assert told(store, edit.edit_set, before)[1:] == ((edit.id,), None, before + 1)
    store.write(commands.DeleteLabel("p", "no label", "default", "production"))
    store.write(commands.DeleteEditSet("p", "gone", "default"))
    with pytest.raises(EditConflict, match=r"set .* is deleted"):
        switch(store, edit, True, "2")


def test_a_set_and_the_server_are_switched_by_the_delta(store, database_url):
    edits = {project: add(store, "a", project=project)[0] for project in ("p", "q")}
    make_ready(store, *edits.values())
    off = store.write(commands.SwitchEditSet("p", "1", "default", False))
    assert (off.disabled, off.snapshot.num_edits, off.snapshot.version) == (True, 1, 2)
    assert told(store, off.id, 1)[1:] == ((), "edit_set", 2)
    assert told(store, edits["q"].edit_set)[2] is None
    assert store.write(commands.SwitchServer("p", False)) == {off.id: 3, edits["q"].edit_set: 2}
    assert [told(store, edit.edit_set)[2] for edit in edits.values()] == ["server", "server"]
    again = EditStore(database_url)
    assert not again.read(is_server_on)
    assert again.write(commands.SwitchServer("p", False)) == {off.id: 3, edits["q"].edit_set: 2}
    again.close()
    store.write(commands.SwitchServer("p", True))
    assert [told(store, edit.edit_set)[2] for edit in edits.values()] == ["edit_set", None]
    on = store.write(commands.SwitchEditSet("p", "2", "default", True))
    assert (on.disabled, told(store, on.id)[2]) == (False, None)
    assert store.read(problems) == []


def test_a_new_set_of_a_server_that_is_off_is_off(store):
    store.write(commands.SwitchServer("p", False))
    (edit,) = add(store, "a")
    make_ready(store, edit)
    assert told(store, edit.edit_set)[2] == "server"


def test_switches_of_other_projects_are_out_of_reach(store):
    (edit,) = add(store, "a")
    for error, command in (
        (EditNotFound, commands.SwitchEdit("q", "1", edit.id, False)),
        (EditNotFound, commands.ApproveEdit("q", "2", edit.id)),
        (EditSetNotFound, commands.SwitchEditSet("q", "3", edit.edit_set, False)),
    ):
        with pytest.raises(error):
            store.write(command)


def two_person(store):
    store.write(commands.CreateEditSet("p", "c", "rules", two_person=True))
    assert head(store, "rules").two_person
    new = (NewEdit("a", (1, 2)),)
    (edit,) = as_key(store, "anna", commands.AddEdits("p", "add", "rules", new))
    return edit


def test_what_one_writes_joins_when_another_approves(store):
    edit = two_person(store)
    make_ready(store, edit)
    waiting = store.read(get_edit, "p", edit.id)
    assert (waiting.held, waiting.written_by, waiting.approved_by) == ("approval", "anna", None)
    assert told(store, edit.edit_set)[0] == set()
    with pytest.raises(EditConflict, match="another person"):
        as_key(store, "anna", commands.ApproveEdit("p", "1", edit.id))
    with pytest.raises(EtagMismatch):
        as_key(store, "bert", commands.ApproveEdit("p", "2", edit.id, (7,)))
    done = as_key(store, "bert", commands.ApproveEdit("p", "3", edit.id, (1,)))
    assert (done.held, done.approved_by) == (None, "bert")
    assert told(store, edit.edit_set)[0] == {(edit.id, 1)}
    assert as_key(store, "carl", commands.ApproveEdit("p", "4", edit.id)).approved_by == "bert"


def test_each_version_needs_its_own_approval(store):
    edit = two_person(store)
    as_key(store, "bert", commands.ApproveEdit("p", "early", edit.id))
    make_ready(store, edit)
    assert told(store, edit.edit_set)[0] == {(edit.id, 1)}, "it may be approved while it is compressed"
    new = as_key(store, "bert", commands.ReplaceEdit("p", "r", edit.id, NewEdit("b", (3,))))
    make_ready(store, new)
    assert told(store, edit.edit_set)[0] == {(edit.id, 1)}, "the approved version serves on"
    with pytest.raises(EditConflict):
        as_key(store, "bert", commands.ApproveEdit("p", "own", edit.id))
    as_key(store, "anna", commands.ApproveEdit("p", "a2", edit.id))
    assert told(store, edit.edit_set)[0] == {(edit.id, 2)}
    as_key(store, "anna", commands.RetireEdit("p", "x", edit.id))
    back = as_key(store, "anna", commands.RestoreEdit("p", "back", edit.id, 2, (3,)))
    make_ready(store, back)
    assert store.read(get_edit, "p", edit.id).held == "approval"
    with pytest.raises(EditConflict):
        as_key(store, "anna", commands.ApproveEdit("p", "b", edit.id))
    assert store.read(problems) == []


def test_other_sets_wait_for_nobody(store):
    (edit,) = add(store, "a")
    make_ready(store, edit)
    with pytest.raises(EditConflict, match="waits for no approval"):
        as_key(store, "bert", commands.ApproveEdit("p", "1", edit.id))
