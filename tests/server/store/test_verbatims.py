"""Verbatim edits in the store: what they are found by, who may read them, and what is left of them."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from incomes_server.auth.master_key import MasterKey
from incomes_server.edits import NewEdit, RecallKeys, VerbatimState, found_by
from incomes_server.edits.verbatim import VerbatimLease, VerbatimOutcome
from incomes_server.store import commands
from incomes_server.store.core import EditStore
from incomes_server.store.counts import count
from incomes_server.store.edits import get_edit, list_edits
from incomes_server.store.outcomes import pending_jobs, waiting_texts
from incomes_server.store.vault import ChangedValue
from incomes_server.store.verbatims import get_verbatim, verbatims_wait

from incomes_plugin.errors import EditNotFound
from tests.server.store.test_core import make_ready
from tests.server.store.test_erasure import files_of

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
    assert waiting.text == found_by(KEYS)
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


ORIGIN = json.dumps({"model": "vf_a", "tokenizer": "t", "template": "f"})
RECORD = b"vectors that say the clause " * 3


def lease(store, worker="one", held=(), limit=9, lease_s=60):
    return store.write(commands.LeaseVerbatims(worker, tuple(held), limit, lease_s, ORIGIN))


def verified(edit, record=RECORD, origin=ORIGIN):
    return VerbatimOutcome(edit.id, edit.version, VerbatimState.VERIFIED, None, origin, record, 2, 17, 1.25, 40)


def made(store, edit, **more):
    """The edit with vectors, by a worker of that name."""
    lease(store)
    assert store.write(commands.RecordVerbatims("one", (verified(edit, **more),))) == 1


def state_of(store, edit):
    found = store.read(get_edit, "p", edit.id, edit.version).verbatim
    return found.state, found.reason


def test_a_worker_takes_makes_and_leaves_a_record(store):
    edit, other = add(store), add(store, "Z9-330-B", RecallKeys("Part number"), "o")
    assert store.read(verbatims_wait, "three")
    assert [job.text for job in lease(store, limit=1).jobs] == [CLAUSE]
    (job,) = lease(store, "two").jobs
    assert (job.edit, job.former, store.read(verbatims_wait, "three")) == ((other.id, 1), None, False)
    assert state_of(store, edit) == (VerbatimState.OPTIMISING, "its vectors are being made")
    refused = VerbatimOutcome(other.id, 1, VerbatimState.TEXT_FALLBACK, "12 of 17 tokens right", ORIGIN, b"x", tokens=4)
    assert store.write(commands.RecordVerbatims("one", (verified(edit), refused))) == 1, "the other is not its own"
    assert store.write(commands.RecordVerbatims("two", (refused,))) == 1
    found = store.read(get_verbatim, "p", edit.id, 1)
    assert (found.state, found.reason, found.record) == (VerbatimState.VERIFIED, None, RECORD)
    shown = store.read(get_edit, "p", edit.id).verbatim
    assert (shown.vectors, shown.num_bytes, shown.tokens, shown.margin, shown.steps) == (2, len(RECORD), 17, 1.25, 40)
    fallback = store.read(get_verbatim, "p", other.id, 1)
    assert (fallback.state, fallback.reason, fallback.record, fallback.text) == (
        VerbatimState.TEXT_FALLBACK, "12 of 17 tokens right", None, "Z9-330-B",
    )  # fmt: skip
    assert lease(store).jobs == ()


def test_a_silent_worker_loses_its_lease_and_one_that_beats_does_not(database_url):
    now = [1_000_000_000.0]
    store = EditStore(database_url, clock=lambda: now[0])
    edit = add(store)
    lease(store)
    now[0] += 50
    assert lease(store, held=((edit.id, 1), ("edit_x", 1))) == VerbatimLease(((edit.id, 1),), ())
    now[0] += 50
    assert lease(store, "two").jobs == ()
    now[0] += 11
    assert [job.edit for job in lease(store, "two").jobs] == [(edit.id, 1)]
    assert lease(store, held=((edit.id, 1),), limit=0).held == ()
    assert store.write(commands.RecordVerbatims("one", (verified(edit),))) == 0, "too late"
    store.close()


def test_a_worker_that_was_restarted_gets_its_texts_again_and_one_that_ends_all_is_given_up(store):
    edit = add(store)
    for attempt in range(3):
        assert store.read(verbatims_wait, "one")
        assert store.read(verbatims_wait, "two") is (attempt == 0)
        assert [job.edit for job in lease(store).jobs] == [(edit.id, 1)]
    assert lease(store).jobs == ()
    assert state_of(store, edit) == (VerbatimState.FAILED, "no worker finished it in 3 attempts")
    assert store.read(get_verbatim, "p", edit.id, 1).text == CLAUSE


def test_what_failed_has_another_chance_with_another_model(store):
    edit = add(store)
    for _ in range(4):  # its worker ends each time
        lease(store)
    assert state_of(store, edit)[0] is VerbatimState.FAILED
    assert store.write(commands.RequeueVerbatims(ORIGIN)) == 0
    assert store.write(commands.RequeueVerbatims(json.dumps({**json.loads(ORIGIN), "model": "vf_other"}))) == 1
    assert state_of(store, edit)[0] is VerbatimState.PLANNING
    assert [job.edit for job in lease(store).jobs] == [(edit.id, 1)]


def test_what_is_out_of_service_is_not_worked_on(store):
    retired, erased, replaced = (add(store, text, KEYS, text) for text in ("a", "b", "c"))
    lease(store)
    store.write(commands.RetireEdit("p", "r", retired.id))
    store.write(commands.EraseEdit("p", "e", erased.id))
    newer = store.write(commands.ReplaceEdit("p", "n", replaced.id, NewEdit("d", (1,), found_by=KEYS)))
    held = [(edit.id, 1) for edit in (retired, erased, replaced)]
    found = lease(store, held=held)
    assert (found.held, [job.edit for job in found.jobs]) == ((), [(newer.id, 2)])
    assert store.write(commands.RecordVerbatims("one", (verified(erased),))) == 0


def test_another_model_makes_them_stale_and_they_begin_at_the_old_vectors(store):
    edit, hopeless = add(store), add(store, "hopeless", KEYS, "h")
    lease(store)
    outcome = VerbatimOutcome(hopeless.id, 1, VerbatimState.TEXT_FALLBACK, "too long", ORIGIN)
    store.write(commands.RecordVerbatims("one", (verified(edit), outcome)))
    assert store.write(commands.RequeueVerbatims(ORIGIN)) == 0
    other = json.dumps({"model": "vf_a", "tokenizer": "u", "template": "f"})
    assert store.write(commands.RequeueVerbatims(other)) == 2
    assert state_of(store, edit) == (VerbatimState.STALE, "its vectors were made with another tokenizer")
    assert state_of(store, hopeless)[0] is VerbatimState.PLANNING
    found = store.read(get_verbatim, "p", edit.id, 1)
    assert (found.text, found.record) == (CLAUSE, None), "stale vectors say nothing"
    (job, again) = lease(store).jobs
    assert (job.former, job.former_text, again.former) == (RECORD, CLAUSE, None)


def test_a_new_version_begins_at_the_vectors_of_the_former_one(store):
    edit = add(store)
    made(store, edit)
    store.write(commands.ReplaceEdit("p", "r", edit.id, NewEdit("Newer clause.", (4,), found_by=KEYS)))
    (job,) = lease(store).jobs
    assert (job.text, job.former, job.former_text) == ("Newer clause.", RECORD, CLAUSE)


def test_a_record_that_went_wrong_is_made_again_and_at_last_stays_text(store):
    edit = add(store)
    for _ in range(3):
        made(store, edit)
        store.write(commands.RefuseVerbatim((edit.id, 1), "recall left the text at token 3 of 17"))
        assert state_of(store, edit) == (VerbatimState.STALE, "recall left the text at token 3 of 17")
    assert lease(store).jobs == ()
    assert state_of(store, edit)[0] is VerbatimState.FAILED


@pytest.mark.parametrize("masters", [(), (MasterKey(bytes(32)),)], ids=["clear", "encrypted"])
def test_vectors_are_sealed_and_in_no_file_after_an_erasure(sqlite_url, masters):
    """The record as a whole is under the project's key, digests of text and tokens with it."""
    store = EditStore(sqlite_url, masters=masters)
    edit, other = add(store), add(store, "another text", KEYS, "o")
    lease(store)
    store.write(commands.RecordVerbatims("one", (verified(edit), verified(other, b"other vectors"))))
    assert (RECORD in files_of(sqlite_url)) is not bool(masters)
    if masters:
        with store._writer.begin() as conn:
            moved = "UPDATE verbatims SET record = (SELECT record FROM verbatims WHERE edit_id = ?) WHERE edit_id = ?"
            before = conn.exec_driver_sql("SELECT record FROM verbatims WHERE edit_id = ?", (other.id,)).scalar()
            conn.exec_driver_sql(moved, (edit.id, other.id))
        with pytest.raises(ChangedValue):
            store.read(get_verbatim, "p", other.id, 1)
        with store._writer.begin() as conn:
            conn.exec_driver_sql("UPDATE verbatims SET record = ? WHERE edit_id = ?", (before, other.id))
    assert store.read(get_verbatim, "p", edit.id, 1).record == RECORD
    store.write(commands.EraseEdit("p", "e", edit.id))
    assert RECORD not in files_of(sqlite_url)
    assert store.read(get_verbatim, "p", other.id, 1).record == b"other vectors"
    store.close()


def test_states_that_are_counted(store):
    made(store, add(store))
    add(store, "b", KEYS, "b")
    assert store.read(count).verbatims == {"verified": 1, "planning": 1}
