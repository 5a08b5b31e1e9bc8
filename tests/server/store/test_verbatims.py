"""Verbatim edits in the store: what they are found by, who may read them, and what is left of them."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from incomes_server.auth.master_key import MasterKey
from incomes_server.edits import NewEdit, RecallKeys, VerbatimState
from incomes_server.store import commands
from incomes_server.store.core import EditStore
from incomes_server.store.edits import get_edit, list_edits
from incomes_server.store.outcomes import pending_jobs, waiting_texts
from incomes_server.store.verbatims import get_verbatim

from incomes_plugin.errors import EditNotFound
from tests.server.store.test_core import make_ready

KEYS = RecallKeys("Cancellation", ("How do I cancel?", "What is the notice period?"))
CLAUSE = "Either party may cancel with thirty days' notice in writing."


def add(store, text=CLAUSE, keys=KEYS, request_id="v"):
    store.write(commands.EnsureEditSet("p", "default"))
    new = NewEdit(text, (1, 2, 3), found_by=keys)
    (edit,) = store.write(commands.AddEdits("p", request_id, "default", (new,)))
    return edit


def listed(store, **wanted):
    page, _ = store.read(list_edits, "p", edit_set=None, status=None, limit=10, after=None, order="asc", **wanted)
    return [edit.id for edit in page]


def test_a_verbatim_edit_waits_for_vectors_and_is_said_from_its_text(store):
    edit = add(store)
    assert (edit.kind, edit.verbatim.keys, edit.verbatim.state) == ("verbatim", KEYS, VerbatimState.PLANNING)
    found = store.read(get_verbatim, "p", edit.id, 1)
    assert (found.text, found.title, found.questions, found.record) == (CLAUSE, *vars(KEYS).values(), None)
    assert found.reason == "waits for a worker that makes vectors"
    (job,) = store.read(pending_jobs, 9)
    assert job.kind == "verbatim"
    (waiting,) = store.read(waiting_texts, 0, 9)
    assert waiting.text.split("\n") == [KEYS.title, *KEYS.questions, CLAUSE]
    make_ready(store, edit)
    assert store.read(get_edit, "p", edit.id).status == "ready", "it is active before there are vectors"


def test_facts_are_as_they_were(store):
    edit, fact = add(store), add(store, "Pump Z9 is red.", None, "f")
    assert (fact.kind, fact.verbatim) == ("fact", None)
    assert listed(store, kind="fact") == [fact.id]
    assert listed(store, kind="verbatim") == listed(store, verbatim=VerbatimState.PLANNING) == [edit.id]
    assert listed(store, verbatim=VerbatimState.VERIFIED) == []
    assert {job.kind for job in store.read(pending_jobs, 9)} == {"fact", "verbatim"}


def test_other_projects_and_other_kinds_are_unknown(store):
    edit, fact = add(store), add(store, "Pump Z9 is red.", None, "f")
    for project, edit_id, version in (("q", edit.id, 1), ("p", edit.id, 2), ("p", fact.id, 1), ("p", "edit_x", 1)):
        with pytest.raises(EditNotFound):
            store.read(get_verbatim, project, edit_id, version)


def test_replaced_and_restored_versions_have_what_they_are_found_by(store):
    edit = add(store)
    newer = RecallKeys("Notice")
    store.write(commands.ReplaceEdit("p", "r", edit.id, NewEdit("Newer clause.", (4,), found_by=newer)))
    assert store.read(get_edit, "p", edit.id, 1).verbatim.keys == KEYS
    store.write(commands.RetireEdit("p", "x", edit.id))
    back = store.write(commands.RestoreEdit("p", "b", edit.id, 2, (4, 5)))
    assert (back.version, back.kind, back.verbatim.keys, back.text) == (3, "verbatim", newer, "Newer clause.")
    store.write(commands.RetireEdit("p", "y", edit.id))
    as_fact = store.write(commands.RestoreEdit("p", "c", edit.id, 3, (4, 5)))
    fact = store.write(commands.ReplaceEdit("p", "d", edit.id, NewEdit("A fact.", (4,))))
    assert (as_fact.kind, fact.kind, fact.verbatim) == ("verbatim", "fact", None)


def test_an_erased_one_has_no_row(store):
    edit = add(store)
    store.write(commands.EraseEdit("p", "e", edit.id))
    erased = store.read(get_edit, "p", edit.id)
    assert (erased.kind, erased.verbatim, erased.status) == ("verbatim", None, "erased")
    with pytest.raises(EditNotFound):
        store.read(get_verbatim, "p", edit.id, 1)
    with store._reader.connect() as conn:
        assert conn.exec_driver_sql("SELECT count(*) FROM verbatims").scalar() == 0


def test_former_versions_that_no_state_needs_go(store):
    edit = add(store)
    make_ready(store, edit)
    newer = store.write(commands.ReplaceEdit("p", "r", edit.id, NewEdit("Newer.", (4,), found_by=KEYS)))
    make_ready(store, newer)
    while store.write(commands.Compact(edit.edit_set, 2)):
        pass
    with pytest.raises(EditNotFound):
        store.read(get_verbatim, "p", edit.id, 1)
    assert store.read(get_verbatim, "p", edit.id, 2).text == "Newer."


def test_titles_and_questions_are_encrypted_and_follow_a_new_key(sqlite_url, tmp_path: Path):
    store = EditStore(sqlite_url, masters=(MasterKey(bytes(32)),))
    edit = add(store)
    store.write(commands.RotateDataKey("p", "rotate"))
    while store.write(commands.Reseal(10)).moved:
        pass
    assert store.read(get_verbatim, "p", edit.id, 1).title == KEYS.title
    with sqlite3.connect(tmp_path / "edits.db") as conn:
        keys, said = conn.execute("SELECT data_key, said FROM verbatims").fetchone()
        assert keys == conn.execute("SELECT id FROM data_keys ORDER BY seq DESC").fetchone()[0]
        assert "ancel" not in said
    conn.close()
    store.write(commands.EraseDataKeys("p", "gone"))
    with pytest.raises(EditNotFound):
        store.read(get_verbatim, "p", edit.id, 1)
    store.close()
