"""Gists in object storage: written before their row, checked when read, gone with what they were made from."""

import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from incomes_server.auth.master_key import MasterKey
from incomes_server.edits import EditStatus, NewEdit
from incomes_server.settings import load_settings
from incomes_server.store import commands, objects
from incomes_server.store.actor import EditStoreActor
from incomes_server.store.backup import backup, restore
from incomes_server.store.check import problems
from incomes_server.store.compaction import compaction_targets
from incomes_server.store.core import EditStore
from incomes_server.store.edits import get_edit
from incomes_server.store.log import read_delta
from incomes_server.store.outcomes import pending_jobs
from incomes_server.store.schema import edit_versions, loose_objects
from sqlalchemy import func, select

from incomes_plugin.errors import GistStorageFailed, InvalidValue
from tests.server.gists import keys_of, outcome_of


@pytest.fixture
def database_url(postgres):
    with postgres.database() as url:
        yield url


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "gists"
    path.mkdir()
    return path


@pytest.fixture
def store(database_url, folder):
    with closing(EditStore(database_url, gist_storage=folder.as_uri())) as opened:
        yield opened


def files_in(folder: Path):
    return [path for path in folder.rglob("*") if path.is_file()]


def made(store, *texts):
    edit_set = store.write(commands.EnsureEditSet("p", "default"))
    edits = [store.write(commands.AddEdits("p", text, "default", (NewEdit(text, (1, 2)),)))[0] for text in texts]
    store.write(commands.RecordOutcomes(tuple(outcome_of(edit.id, edit.version) for edit in edits)))
    return edit_set, edits


def blobs_in_rows(store):
    return store.read(lambda conn: [blob for blob in conn.scalars(select(edit_versions.c.blob)) if blob])


def loose(store):
    return store.read(lambda conn: conn.scalar(select(func.count()).select_from(loose_objects)))


def test_rows_have_digests_and_replicas_get_gists(store, folder):
    edit_set, edits = made(store, "a", "b")
    assert all(objects.is_reference(blob) for blob in blobs_in_rows(store))
    assert len(files_in(folder)) == 2
    assert {path.stat().st_mode & 0o777 for path in files_in(folder)} == {0o600}
    delta = store.read(read_delta, edit_set.id, 0)
    assert keys_of(delta.added) == [(edit.id, 1) for edit in edits]
    assert (loose(store), store.read(problems)) == (0, [])


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_an_object_that_is_not_what_was_written_is_never_used(store, folder, damage):
    edit_set, _ = made(store, "a")
    (path,) = files_in(folder)
    path.write_bytes(b"something else") if damage == "changed" else path.unlink()
    with pytest.raises(GistStorageFailed, match="was changed" if damage == "changed" else "has no object"):
        store.read(read_delta, edit_set.id, 0)


def test_a_storage_that_fails_leaves_edits_waiting_and_they_are_made_later(store, folder):
    (tmp := folder.with_name("away")).touch()
    folder.rename(folder.with_name("kept"))
    tmp.rename(folder)  # a file where the folder was
    with pytest.raises(GistStorageFailed, match="cannot be written"):
        made(store, "a")
    (job,) = store.read(pending_jobs, 10)
    assert store.read(get_edit, "p", job.edit_id).status is EditStatus.PENDING
    folder.unlink()
    folder.with_name("kept").rename(folder)
    store.write(commands.RecordOutcomes((outcome_of(job.edit_id, job.version),)))
    assert store.read(get_edit, "p", job.edit_id).status is EditStatus.READY


def test_a_storage_that_hangs_is_given_up_and_not_asked_again_at_once(store, folder, monkeypatch):
    """Replicas that poll one after another must not all wait for it."""
    edit_set, _ = made(store, "a")
    monkeypatch.setattr(objects, "ANSWER_WITHIN_S", 0.2)
    asked, read = [], objects.GistStorage._read
    monkeypatch.setattr(objects.GistStorage, "_read", lambda self, each: asked.append(each) or read(self, each))
    (path,) = files_in(folder)
    path.unlink()
    os.mkfifo(path)  # reading it waits for a writer
    try:
        with pytest.raises(GistStorageFailed, match=r"does not answer within 0\.2 s"):
            store.read(read_delta, edit_set.id, 0)
        monkeypatch.setattr(store._storage, "_silent_until_s", store._storage._silent_until_s + 60)
        with pytest.raises(GistStorageFailed, match=r"has not answered within 0\.2 s"):
            store.read(read_delta, edit_set.id, 0)
        assert len(asked) == 1
    finally:
        with path.open("wb"):  # let the thread go
            pass


def test_what_is_written_for_a_transaction_that_fails_goes(store, folder, monkeypatch):
    edit_set = store.write(commands.EnsureEditSet("p", "default"))
    (edit,) = store.write(commands.AddEdits("p", "1", "default", (NewEdit("a", (1,)),)))
    monkeypatch.setattr("incomes_server.store.membership.append", broken)
    with pytest.raises(Exception, match="internal error"):
        store.write(commands.RecordOutcomes((outcome_of(edit.id, 1),)))
    assert (len(files_in(folder)), loose(store)) == (1, 1), "written, and known to belong to nobody"
    store.bury()
    assert len(files_in(folder)) == 1, "the transaction might still run"
    monkeypatch.setattr(objects, "UNCOMMITTED_S", -1.0)
    with pytest.raises(Exception, match="internal error"):
        store.write(commands.RecordOutcomes((outcome_of(edit.id, 1),)))
    store.bury()
    assert (len(files_in(folder)), loose(store)) == (1, 1), "the second one has gone, its time was over"
    later = int(time.time() + 1000)
    monkeypatch.setattr(objects, "time", SimpleNamespace(time=lambda: later, monotonic=time.monotonic))
    store.bury()
    assert (files_in(folder), loose(store)) == ([], 0)
    assert edit_set.id


def broken(*_, **__):
    raise RuntimeError("a defect")


def test_erasing_an_edit_removes_its_object_when_it_answers(store, folder):
    edit_set, (edit, other) = made(store, "a", "b")
    store.write(commands.EraseEdit("p", "erase", edit.id))
    assert len(files_in(folder)) == 1
    assert keys_of(store.read(read_delta, edit_set.id, 0).added) == [(other.id, 1)]
    assert store.read(problems) == []


def test_an_object_that_cannot_be_deleted_now_is_deleted_later(store, folder, monkeypatch):
    _, (edit,) = made(store, "a")
    with monkeypatch.context() as context:
        context.setattr(objects.GistStorage, "_delete", broken)
        store.write(commands.EraseEdit("p", "erase", edit.id))
        assert (len(files_in(folder)), loose(store)) == (1, 1)
    assert store.bury()
    assert (files_in(folder), loose(store)) == ([], 0)


def test_compaction_and_another_model_let_objects_go(store, folder):
    edit_set, (edit, _) = made(store, "a", "b")
    store.write(commands.RetireEdit("p", "retire", edit.id))
    for name, version in store.read(compaction_targets, int(time.time()) + 10).items():
        store.write(commands.Compact(name, version))
    store.bury()
    assert len(files_in(folder)) == 1
    assert store.write(commands.RequeueStale("mf_b")) == 1
    store.bury()
    assert (files_in(folder), loose(store)) == ([], 0)
    assert store.read(read_delta, edit_set.id, 0).added == ()


def test_encrypted_gists_are_encrypted_in_the_storage_and_go_with_their_key(database_url, folder):
    made_with, edit_id = MasterKey(bytes(32)), ""
    with closing(EditStore(database_url, masters=[made_with], gist_storage=folder.as_uri())) as store:
        edit_set, (edit,) = made(store, "a")
        edit_id = edit.id
        (before,) = files_in(folder)
        assert edit_id.encode() not in before.read_bytes()
        assert keys_of(store.read(read_delta, edit_set.id, 0).added) == [(edit_id, 1)]
        store.write(commands.RotateDataKey("p", "rotate"))
        while store.write(commands.Reseal(10)).moved:
            pass
        store.bury()
        (after,) = files_in(folder)
        assert after != before
        assert keys_of(store.read(read_delta, edit_set.id, 0).added) == [(edit_id, 1)]
        store.write(commands.EraseDataKeys("p", "erase"))
        store.bury()
        assert files_in(folder) == []


def test_a_changed_object_holds_up_no_rotation_and_a_storage_that_is_away_damages_nothing(database_url, folder):
    masters = [MasterKey(bytes(32))]
    with closing(EditStore(database_url, masters=masters, gist_storage=folder.as_uri())) as store:
        _, edits = made(store, "a", "b", "c")
        store.write(commands.RotateDataKey("p", "rotate"))
        kept = folder.rename(folder.with_name("kept"))
        folder.touch()  # a file where the folder was
        with pytest.raises(GistStorageFailed):
            store.write(commands.Reseal(10))
        folder.unlink()
        kept.rename(folder)
        files_in(folder)[0].write_bytes(b"something else")
        done = store.write(commands.Reseal(10))
        ((table, edit_id, version),) = done.damaged
        assert (done.moved, table, version) == (2, "edit_versions", 1)
        assert edit_id in {edit.id for edit in edits}
        assert store.write(commands.Reseal(10, done.damaged)).moved == 0


def test_an_edit_whose_object_is_lost_can_be_erased(store, folder):
    _, (edit,) = made(store, "a")
    (path,) = files_in(folder)
    path.unlink()
    assert store.write(commands.EraseEdit("p", "erase", edit.id)).status is EditStatus.ERASED
    assert (store.read(problems), loose(store)) == ([], 0)


def test_objects_of_a_step_of_a_rotation_are_written_side_by_side(database_url, folder, monkeypatch):
    """The writes of others wait for the step."""
    put = []
    whole = objects.GistStorage.put
    monkeypatch.setattr(
        objects.GistStorage, "put", lambda self, contents: put.append(len(contents)) or whole(self, contents)
    )
    with closing(EditStore(database_url, masters=[MasterKey(bytes(32))], gist_storage=folder.as_uri())) as store:
        edit_set, edits = made(store, *"abcdef")
        store.write(commands.RotateDataKey("p", "rotate"))
        put.clear()
        assert store.write(commands.Reseal(10)).moved == 6
        assert put == [6]
        assert set(keys_of(store.read(read_delta, edit_set.id, 0).added)) == {(edit.id, 1) for edit in edits}


def test_a_backup_is_whole_while_what_it_reads_is_erased(store, folder, database_url, tmp_path, monkeypatch):
    """It reads one state of the rows, and their objects after that: until then none of them is deleted."""
    _, (edit, _) = made(store, "a", "b")
    read, reading, go_on = objects.GistStorage.get, threading.Event(), threading.Event()

    def held_up(self, references):
        reading.set()
        assert go_on.wait(60)
        return read(self, references)

    monkeypatch.setattr(objects.GistStorage, "get", held_up)
    with ThreadPoolExecutor(1) as thread:
        backing_up = thread.submit(backup, database_url, tmp_path / "backup.db", folder.as_uri())
        try:
            assert reading.wait(60)
            store.write(commands.EraseEdit("p", "erase", edit.id))
            assert not store.bury()
            assert (loose(store), len(files_in(folder))) == (1, 2)
        finally:
            go_on.set()
        assert backing_up.result(60).edits == 2
    assert store.bury()
    assert (loose(store), len(files_in(folder))) == (0, 1)


def test_a_backup_has_the_gists_itself(store, folder, database_url, tmp_path):
    edit_set, edits = made(store, "a", "b")
    with pytest.raises(GistStorageFailed, match="give the setting `gist_storage`"):
        backup(database_url, tmp_path / "without.db")
    backup(database_url, tmp_path / "backup.db", folder.as_uri())
    shutil.rmtree(folder)
    restore(tmp_path / "backup.db", f"sqlite:///{tmp_path}/new.db")
    with closing(EditStore(f"sqlite:///{tmp_path}/new.db")) as copy:
        assert keys_of(copy.read(read_delta, edit_set.id, 0).added) == [(edit.id, 1) for edit in edits]


def test_gists_from_before_stay_in_the_database(database_url, folder):
    with closing(EditStore(database_url)) as store:
        edit_set, _ = made(store, "a")
    with closing(EditStore(database_url, gist_storage=folder.as_uri())) as store:
        store.probe_storage()
        (new,) = store.write(commands.AddEdits("p", "2", "default", (NewEdit("b", (1,)),)))
        store.write(commands.RecordOutcomes((outcome_of(new.id, 1),)))
        assert len(store.read(read_delta, edit_set.id, 0).added) == 2
        assert [objects.is_reference(blob) for blob in blobs_in_rows(store)].count(True) == 1
    with (
        closing(EditStore(database_url)) as without,
        pytest.raises(GistStorageFailed, match="give the setting `gist_storage`"),
    ):
        without.read(read_delta, edit_set.id, 0)


@pytest.mark.parametrize(
    ("url", "store_url", "reason"),
    [
        ("/mnt/gists", "postgresql+psycopg://db/incomes", "give a URL such as"),
        ("file:///mnt/gists", "sqlite:///edits.db", "SQLite keeps gists itself"),
    ],
)
def test_a_setting_that_cannot_work_is_refused(url, store_url, reason):
    with pytest.raises(InvalidValue, match=reason) as refused:
        load_settings(None, gist_storage=url, edit_store=store_url)
    assert refused.value.param == "gist_storage"


def test_one_that_joins_may_name_the_storage_and_needs_none():
    load_settings(None, gist_storage="file:///mnt/gists", ray_address="127.0.0.1:6379", join=True)


def test_a_protocol_that_nobody_speaks_is_refused(database_url):
    with pytest.raises(InvalidValue, match="`gist_storage` nothing") as refused:
        EditStore(database_url, gist_storage="nothing://bucket/gists")
    assert refused.value.param == "gist_storage"


async def test_an_object_that_is_lost_keeps_no_news_from_other_edit_sets(database_url, folder):
    with closing(EditStore(database_url, gist_storage=folder.as_uri())) as store:
        sets, edits = {}, {}
        for project in "pq":
            sets[project] = store.write(commands.EnsureEditSet(project, "default")).id
            (edits[project],) = store.write(commands.AddEdits(project, "1", "default", (NewEdit("a", (1, 2)),)))
        lost, whole = sorted("pq", key=sets.get)
        store.write(commands.RecordOutcomes((outcome_of(edits[lost].id, 1),)))
        (path,) = files_in(folder)
        path.unlink()
        store.write(commands.RecordOutcomes((outcome_of(edits[whole].id, 1),)))
    actor = EditStoreActor(database_url, gist_storage=folder.as_uri())
    try:
        for serving in (False, True):
            (delta,) = await actor.poll("one", {}, 0.0, serving)
            assert (delta.key, keys_of(delta.added)) == (sets[whole], [(edits[whole].id, 1)])
        with pytest.raises(GistStorageFailed, match="has no object"):
            await actor.poll("one", {sets[whole]: 1}, 0.0, False)
    finally:
        actor._clock.cancel()
        actor._reader.shutdown()
        actor._writer.shutdown()
        actor._store.close()
