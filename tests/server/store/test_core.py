"""The durable store alone: request ids, isolation, paging, joining and leaving snapshots."""

import subprocess
import sys

import pytest
from incomes_server.edits import EditStatus, NewEdit
from incomes_server.store import commands
from incomes_server.store.check import problems
from incomes_server.store.core import KEEP_REQUESTS_S, EditStore
from incomes_server.store.counts import count
from incomes_server.store.database import failure_of
from incomes_server.store.edit_sets import get_edit_set, list_edit_sets
from incomes_server.store.edits import get_edit, get_edits, list_edits
from incomes_server.store.log import PAGE_BYTES, read_delta
from incomes_server.store.outcomes import pending_jobs, waiting_texts
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from incomes_plugin.errors import (
    EditConflict,
    EditNotFound,
    EditSetExists,
    EditSetNotFound,
    IdempotencyKeyReuse,
    InvalidValue,
    Unavailable,
)
from incomes_plugin.gist.edit import Captured, CaptureJob
from tests.server.gists import keys_of, outcome_of


def add(store, *texts, project="p", request_id="add", edit_set="default"):
    store.write(commands.EnsureEditSet(project, edit_set))
    new = tuple(NewEdit(text, (1, 2, 3)) for text in texts)
    return store.write(commands.AddEdits(project, request_id, edit_set, new))


def make_ready(store, *edits, **how):
    store.write(commands.RecordOutcomes(tuple(outcome_of(edit.id, edit.version, **how) for edit in edits)))


def pairs(blobs):
    return set(keys_of(blobs))


def test_one_batch_of_outcomes_is_one_version(store):
    edits = add(store, "a", "b", "c")
    make_ready(store, *edits)
    edit_set = store.read(get_edit_set, "p", "default")
    assert (edit_set.snapshot.version, edit_set.snapshot.num_edits) == (1, 3)
    ready = store.read(get_edit, "p", edits[0].id)
    assert (ready.status, ready.set_version, ready.num_tokens) == (EditStatus.READY, 1, 3)
    assert ready.gist_bytes > 0


def test_ages_follow_creation_whenever_an_edit_was_compressed(store):
    """A replica that applied each change and one that starts later must agree which of two edits is the later."""
    first, second = add(store, "a", "b")
    make_ready(store, second)
    make_ready(store, first)
    edit_set = store.read(get_edit_set, "p", "default").id
    whole = store.read(read_delta, edit_set, 0)
    deltas = [store.read(read_delta, edit_set, version) for version in (0, 1)]
    ages = {edit_id: age for (edit_id, _), age in zip(keys_of(whole.added), whole.ages, strict=True)}
    assert ages[first.id] < ages[second.id]
    assert {e: a for d in deltas for (e, _), a in zip(keys_of(d.added), d.ages, strict=True)} == ages


def test_the_same_request_twice_is_one_write(store):
    first = add(store, "a", "b")
    assert add(store, "a", "b") == first
    create = commands.CreateEditSet("p", "c", "other")
    assert store.write(create) == store.write(create)
    make_ready(store, *first)
    for command in (
        commands.ReplaceEdit("p", "x", first[0].id, NewEdit("new", (5,))),
        commands.RetireEdit("p", "y", first[1].id),
        commands.DeleteEditSet("p", "z", "default"),
    ):
        assert store.write(command) == store.write(command)
    assert store.read(count).edits == {"retired": 3}
    assert store.read(problems) == []


def test_a_request_id_with_another_body_is_refused(store):
    add(store, "a")
    with pytest.raises(IdempotencyKeyReuse):
        add(store, "b")
    assert add(store, "b", project="other")[0].text == "b", "request ids belong to a project"


def test_a_replay_survives_a_restart(store, database_url):
    first = add(store, "a")
    store.close()
    again = EditStore(database_url)
    assert add(again, "a") == first
    again.close()


def test_a_failing_command_stops_no_other(store):
    store.write(commands.EnsureEditSet("p", "default"))
    good = commands.AddEdits("p", "1", "default", (NewEdit("a", (1,)),))
    half = commands.AddEdits("p", "2", "default", (NewEdit("b", (1,)), NewEdit("c", ())))
    lost = commands.AddEdits("p", "3", "nowhere", (NewEdit("d", (1,)),))
    results = store.commit([good, half, lost]).results
    assert [type(result) for result in results] == [list, InvalidValue, EditSetNotFound]
    assert [job.token_ids for job in store.read(pending_jobs, 9)] == [(1,)]


def test_other_projects_see_nothing(store):
    (edit,) = add(store, "secret")
    edit_set = store.read(get_edit_set, "p", "default")
    for read in (
        lambda: store.read(get_edit, "q", edit.id),
        lambda: store.read(get_edits, "q", [edit.id]),
        lambda: store.write(commands.RetireEdit("q", "1", edit.id)),
        lambda: store.write(commands.ReplaceEdit("q", "2", edit.id, NewEdit("x", (1,)))),
    ):
        with pytest.raises(EditNotFound):
            read()
    for name in ("default", edit_set.id):
        with pytest.raises(EditSetNotFound):
            store.read(get_edit_set, "q", name)
        with pytest.raises(EditSetNotFound):
            store.write(commands.DeleteEditSet("q", "3", name))
        with pytest.raises(EditSetNotFound):
            store.write(commands.AddEdits("q", "4", name, (NewEdit("x", (1,)),)))
    assert store.read(list_edit_sets, "q", limit=9, after=None, order="asc") == ([], False)
    assert store.read(list_edits, "q", edit_set=None, status=None, limit=9, after=None, order="asc") == ([], False)


def test_a_replacement_takes_over_in_one_version(store):
    (edit,) = add(store, "old")
    make_ready(store, edit)
    new = store.write(commands.ReplaceEdit("p", "r", edit.id, NewEdit("new", (7,))))
    before = store.read(get_edit_set, "p", "default").snapshot
    assert before.version == 1, "the old version serves until the new one is ready"
    assert store.read(get_edit, "p", edit.id, 1).status is EditStatus.READY
    make_ready(store, new)
    delta = store.read(read_delta, edit.edit_set, 1)
    assert (pairs(delta.added), set(delta.removed)) == ({(edit.id, 2)}, {(edit.id, 1)})
    assert (delta.snapshot.version, delta.snapshot.num_edits) == (2, 1)
    assert delta.base == before.id
    assert store.read(get_edit, "p", edit.id, 1).status is EditStatus.SUPERSEDED
    make_ready(store, edit)
    head = store.read(get_edit_set, "p", "default").snapshot
    assert head.version == 2, "a late gist of the old version changes nothing"


def test_a_failed_replacement_leaves_the_old_one_in_service(store):
    (edit,) = add(store, "old")
    make_ready(store, edit)
    store.write(commands.ReplaceEdit("p", "r", edit.id, NewEdit("new", (7,))))
    store.write(commands.RecordOutcomes((Captured(edit.id, 2, None, error="poisoned"),)))
    failed = store.read(get_edit, "p", edit.id)
    assert (failed.version, failed.status, failed.status_reason) == (2, EditStatus.FAILED, "poisoned")
    assert pairs(store.read(read_delta, edit.edit_set, 0).added) == {(edit.id, 1)}


def test_an_edit_retired_during_compression_stays_retired(store):
    (edit,) = add(store, "gone")
    store.write(commands.MarkCompressing(((edit.id, 1),)))
    assert store.read(get_edit, "p", edit.id).status is EditStatus.COMPRESSING
    assert store.write(commands.RetireEdit("p", "r", edit.id)).set_version is None
    make_ready(store, edit)
    assert store.read(get_edit, "p", edit.id).status is EditStatus.RETIRED
    assert store.read(get_edit_set, "p", "default").snapshot.version == 0
    assert store.write(commands.RetireEdit("p", "again", edit.id)).status is EditStatus.RETIRED
    with pytest.raises(EditConflict):
        store.write(commands.ReplaceEdit("p", "late", edit.id, NewEdit("x", (1,))))


def test_retiring_tells_the_version_to_wait_for(store):
    edits = add(store, "a", "b")
    make_ready(store, *edits)
    assert store.write(commands.RetireEdit("p", "r", edits[0].id)).set_version == 2
    assert store.write(commands.RetireEdit("p", "again", edits[0].id)).set_version == 2
    delta = store.read(read_delta, edits[0].edit_set, 1)
    assert (delta.added, delta.removed, delta.snapshot.num_edits) == ((), ((edits[0].id, 1),), 1)


def test_deleting_a_set_retires_all_and_frees_the_name(store):
    edits = add(store, "a", "b")
    make_ready(store, edits[0])
    gone = store.write(commands.DeleteEditSet("p", "d", "default"))
    assert (gone.snapshot.version, gone.snapshot.num_edits) == (2, 0)
    assert {store.read(get_edit, "p", edit.id).status for edit in edits} == {EditStatus.RETIRED}
    with pytest.raises(EditSetNotFound):
        store.read(get_edit_set, "p", gone.id)
    assert store.write(commands.CreateEditSet("p", "c", "default")).id != gone.id
    assert store.read(problems) == []


def test_names_and_external_ids_are_unique_while_they_live(store):
    store.write(commands.CreateEditSet("p", "1", "kb"))
    with pytest.raises(EditSetExists):
        store.write(commands.CreateEditSet("p", "2", "kb"))
    new = (NewEdit("a", (1,), external_id="doc-1"),)
    (edit,) = store.write(commands.AddEdits("p", "3", "kb", new))
    with pytest.raises(EditConflict):
        store.write(commands.AddEdits("p", "4", "kb", new))
    with pytest.raises(EditConflict):
        store.write(commands.AddEdits("p", "5", "kb", (NewEdit("b", (1,), external_id="doc-2"),) * 2))
    store.write(commands.RetireEdit("p", "6", edit.id))
    assert store.write(commands.AddEdits("p", "7", "kb", new))[0].external_id == "doc-1"


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_pages_meet_without_gap_or_overlap(store, order):
    ids = [edit.id for edit in add(store, *map(str, range(7)))]
    seen, after, more = [], None, True
    while more:
        page, more = store.read(
            list_edits, "p", edit_set="default", status="pending", limit=3, after=after, order=order
        )
        seen += [edit.id for edit in page]
        after = seen[-1]
    assert seen == (ids if order == "asc" else ids[::-1])
    with pytest.raises(InvalidValue):
        store.read(list_edits, "p", edit_set=None, status=None, limit=3, after="edit_unknown", order=order)


def test_a_bad_gist_fails_its_edit_and_no_other(store):
    good, renamed, garbage, empty = add(store, *"abcd")
    store.write(commands.RequeueStale("mf_a"))
    store.write(
        commands.RecordOutcomes(
            (
                outcome_of(good.id, 1),
                Captured(renamed.id, 1, outcome_of(good.id, 1).blob),
                Captured(garbage.id, 1, b"not a gist"),
                Captured(empty.id, 1, None),
            )
        )
    )
    assert store.read(get_edit, "p", good.id).status is EditStatus.READY
    reasons = [store.read(get_edit, "p", edit.id).status_reason for edit in (renamed, garbage, empty)]
    for reason, words in zip(reasons, ("not this edit", "not a gist", "neither"), strict=True):
        assert words in reason


def test_a_gist_of_another_model_is_refused_and_its_edit_waits_on(store):
    good, foreign = add(store, "a", "b")
    store.write(commands.RequeueStale("mf_a"))
    with pytest.raises(Unavailable, match="mf_b"):
        store.write(commands.RecordOutcomes((outcome_of(good.id, 1), outcome_of(foreign.id, 1, fingerprint="mf_b"))))
    make_ready(store, good)
    assert {job.edit for job in store.read(pending_jobs, 9)} == {(foreign.id, 1)}
    make_ready(store, foreign)
    assert store.read(problems) == []


def test_pages_stay_below_the_limit_and_are_states_of_the_past(store):
    edits = add(store, *map(str, range(40)))
    for edit in edits:
        make_ready(store, edit, num_tokens=1000)
    size = store.read(get_edit, "p", edits[0].id).gist_bytes
    position, digests, seen = 0, {}, set()
    for version in range(40):
        digests[version + 1] = store.read(read_delta, edits[0].edit_set, version, page_bytes=1).snapshot.digest
    while position < 40:
        delta = store.read(read_delta, edits[0].edit_set, position, page_bytes=7 * size)
        assert len(delta.added) <= 7
        after = delta.snapshot
        assert (after.digest, after.num_edits) == (digests[after.version], after.version)
        seen |= pairs(delta.added)
        position = after.version
    assert seen == {(edit.id, 1) for edit in edits}


def test_outcomes_above_a_page_become_several_versions(store):
    edits = add(store, "a", "b", "c")
    make_ready(store, *edits, num_tokens=PAGE_BYTES // 17)
    assert store.read(get_edit_set, "p", "default").snapshot.version == 3
    delta = store.read(read_delta, edits[0].edit_set, 0)
    assert (delta.snapshot.version, len(delta.added)) == (1, 1)


def test_a_replica_ahead_of_the_log_is_refused(store):
    (edit,) = add(store, "a")
    with pytest.raises(InvalidValue):
        store.read(read_delta, edit.edit_set, 5)


def test_gists_of_another_model_leave_and_are_made_again(store):
    edits = add(store, "a", "b")
    make_ready(store, *edits, fingerprint="mf_a")
    assert store.write(commands.RequeueStale("mf_a")) == 0
    assert store.write(commands.RequeueStale("mf_b")) == 2
    edit_set = store.read(get_edit_set, "p", "default")
    assert (edit_set.snapshot.version, edit_set.snapshot.num_edits) == (2, 0)
    assert [job.edit_id for job in store.read(pending_jobs, 9)] == [edit.id for edit in edits]
    make_ready(store, *edits, fingerprint="mf_b")
    delta = store.read(read_delta, edit_set.id, 1)
    assert pairs(delta.added) == set(delta.removed) == {(edit.id, 1) for edit in edits}
    assert store.read(problems) == []


def test_waiting_edits_are_spelled_anew(store):
    """Ids of another tokenizer would be compressed as other words."""
    ready, stale, waiting = add(store, "a", "b", "c")
    make_ready(store, stale, fingerprint="mf_a")
    store.write(commands.RequeueStale("mf_b"))
    make_ready(store, ready, fingerprint="mf_b")
    assert [(text.job.edit_id, text.text, text.job.token_ids) for text in store.read(waiting_texts, 0, 9)] == [
        (stale.id, "b", (1, 2, 3)), (waiting.id, "c", (1, 2, 3))
    ]  # fmt: skip
    store.write(commands.Retokenize((CaptureJob(stale.id, 1, (7,)), CaptureJob(ready.id, 1, (8, 8)))))
    assert {job.edit_id: job.token_ids for job in store.read(pending_jobs, 9)} == {
        stale.id: (7,),
        waiting.id: (1, 2, 3),
    }
    assert [store.read(get_edit, "p", edit.id).num_tokens for edit in (ready, stale, waiting)] == [3, 1, 3]
    first = store.read(waiting_texts, 0, 1)
    assert [text.job.edit_id for text in store.read(waiting_texts, first[0].seq, 9)] == [waiting.id]
    assert store.read(problems) == []


def test_no_page_ends_where_the_gists_are_gone(store):
    first, second = add(store, "a", "b")
    make_ready(store, first)
    make_ready(store, second)
    store.write(commands.RequeueStale("mf_b"))
    make_ready(store, second, fingerprint="mf_b")
    page = store.read(read_delta, first.edit_set, 0, page_bytes=1)
    assert (page.snapshot.version, page.added, page.snapshot.num_edits) == (3, (), 0)
    assert pairs(store.read(read_delta, first.edit_set, 3, page_bytes=1).added) == {(second.id, 1)}


def test_nobody_else_may_read_the_database(sqlite_url, tmp_path):
    store = EditStore(sqlite_url)
    add(store, "a")
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("edits.db*")} == {0o600}
    store.close()


def test_old_request_ids_are_forgotten(store):
    first = add(store, "a")
    store.prune_requests()
    assert add(store, "a") == first
    store.prune_requests(older_than_s=-5)
    assert add(store, "a") != first


def test_old_request_ids_are_forgotten_in_steps_while_the_store_serves(database_url):
    now = [0]
    store = EditStore(database_url, clock=lambda: now[0])
    for second in range(5):
        now[0] = second
        add(store, "a", request_id=f"old {second}")
    now[0] = int(KEEP_REQUESTS_S) + 4
    kept = add(store, "a", request_id="new")
    steps = []
    while store.write(commands.ForgetRequests(2)):
        steps.append(store.read(lambda conn: conn.exec_driver_sql("SELECT count(*) FROM requests").scalar()))
    assert steps == [4, 2]
    assert add(store, "a", request_id="new") == kept
    assert add(store, "a", request_id="old 4")[0].created_at == 4, "not older than seven days yet"
    assert add(store, "a", request_id="old 0")[0].created_at == now[0], "forgotten: a new write"
    store.close()


def test_every_commit_is_synced(store):
    with store._writer.begin() as conn:
        if conn.dialect.name == "postgresql":
            assert conn.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"
            return
        assert conn.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert conn.exec_driver_sql("PRAGMA synchronous").scalar() == 2


def test_the_integrity_check_finds_a_forged_log(store):
    (edit,) = add(store, "a")
    make_ready(store, edit)
    with store._writer.begin() as conn:
        conn.exec_driver_sql("DELETE FROM log")
    assert store.read(problems)


def test_the_actors_do_without_torch():
    code = (
        "import sys, incomes_server.store.actor, incomes_server.compression.scheduler; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_full_disk_is_named_without_statements_and_values(sqlite_url):
    store = EditStore(sqlite_url)
    store.write(commands.CreateEditSet("p", "r0", "s"))

    @event.listens_for(store._writer, "begin")
    def no_more_pages(conn):
        conn.exec_driver_sql("PRAGMA max_page_count=1")

    secret = NewEdit("a secret text " * 10_000, (1,))
    with pytest.raises(OperationalError) as caught:
        store.write(commands.AddEdits("p", "r1", "s", (secret,)))
    error = failure_of(caught.value)
    assert "disk is full" in error.message
    assert "secret" not in error.message
    store.close()
