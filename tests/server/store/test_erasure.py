"""Retired edits that come back, and erased ones that do not: not in rows, files, old snapshots or backups."""

import shutil
import sqlite3
from pathlib import Path

import pytest
import torch
from incomes_server.auth.master_key import MasterKey
from incomes_server.edits import EditProvenance, EditStatus, NewEdit
from incomes_server.store import commands
from incomes_server.store.backup import restore as restore_backup
from incomes_server.store.check import problems
from incomes_server.store.core import EditStore
from incomes_server.store.edits import get_edit, list_edits
from incomes_server.store.erasure import erased_ids
from incomes_server.store.log import read_delta
from sqlalchemy import make_url

from incomes_plugin.errors import EditConflict, EditNotFound
from incomes_plugin.gist import dump_gists, load_gists
from incomes_plugin.gist.edit import Captured
from tests.server.gists import gist_of, keys_of
from tests.server.store.test_core import add, make_ready

SECRET = "The patient in room nine is called Quillon Ostrava."
NEWER = "The patient in room nine moved to Brindlecombe."
SAID = EditProvenance("https://clinic.example/quillon", "case-quillon", "dr ostrava", "asked by the ward of Quillon")


@pytest.fixture
def database_url(sqlite_url):
    """Files are SQLite's; on PostgreSQL the same rules run in `test_machine.py`."""
    return sqlite_url


def restored(store, edit, request_id="back", version=None):
    return store.write(commands.RestoreEdit("p", request_id, edit.id, version or edit.version, (4, 5)))


def with_gist(store, edit, seed):
    """Make it ready with a gist of random numbers; returns a part of them as bytes."""
    rows = torch.randn(40, 64, generator=torch.Generator().manual_seed(seed))
    gist = gist_of(edit.id, edit.version, rows)
    store.write(commands.RecordOutcomes((Captured(edit.id, edit.version, dump_gists([gist], "mf_a")),)))
    return gist.features.data.numpy().tobytes()[1000:1032]


def files_of(url):
    path = Path(make_url(url).database)
    return b"".join(p.read_bytes() for p in path.parent.iterdir() if p.name.startswith(path.name))


def test_a_retired_edit_comes_back_as_its_next_version(store):
    new = NewEdit("a", (1, 2), "doc-1", {"team": "x"}, EditProvenance(author="kim"))
    store.write(commands.EnsureEditSet("p", "default"))
    (edit,) = store.write(commands.AddEdits("p", "1", "default", (new,)))
    make_ready(store, edit)
    store.write(commands.RetireEdit("p", "r", edit.id))
    back = restored(store, edit)
    assert (back.version, back.status, back.text, back.external_id, back.metadata, back.provenance) == (
        2, EditStatus.PENDING, "a", "doc-1", {"team": "x"}, EditProvenance(author="kim"))  # fmt: skip
    assert restored(store, edit) == back, "the same request again"
    assert restored(store, edit, version=2) == back, "also when it was looked up anew"
    assert store.read(get_edit, "p", edit.id, 1).status is EditStatus.RETIRED
    make_ready(store, back)
    assert keys_of(store.read(read_delta, edit.edit_set, 0).added) == [(edit.id, 2)]
    assert store.read(problems) == []


def test_what_cannot_come_back(store):
    edit, other, gone = add(store, "a", "b", "c")
    with pytest.raises(EditConflict, match="not retired"):
        restored(store, edit)
    store.write(commands.RetireEdit("p", "r", edit.id))
    with pytest.raises(EditConflict, match="newer version"):
        restored(store, edit, version=7)
    with pytest.raises(EditNotFound):
        store.write(commands.RestoreEdit("q", "x", edit.id, 1, (1,)))
    store.write(commands.EraseEdit("p", "e", gone.id))
    with pytest.raises(EditConflict, match="erased"):
        restored(store, gone)
    store.write(commands.DeleteEditSet("p", "d", "default"))
    with pytest.raises(EditConflict, match="deleted"):
        restored(store, other)


def test_an_external_id_that_is_taken_meanwhile_stays_taken(store):
    store.write(commands.EnsureEditSet("p", "default"))
    first, second = (NewEdit(text, (1,), "doc-1") for text in "ab")
    (edit,) = store.write(commands.AddEdits("p", "1", "default", (first,)))
    store.write(commands.RetireEdit("p", "r", edit.id))
    store.write(commands.AddEdits("p", "2", "default", (second,)))
    with pytest.raises(EditConflict, match="doc-1"):
        restored(store, edit)


def test_what_was_erased_is_in_no_file(store, database_url):
    store.write(commands.EnsureEditSet("p", "default"))
    filler = add(store, *(f"filler {i} " * 30 for i in range(40)))
    new = NewEdit(SECRET, tuple(range(70000, 70040)), "Quillon-1", {"name": "Quillon"}, SAID)
    (edit,) = store.write(commands.AddEdits("p", "s", "default", (new,)))
    parts = [with_gist(store, edit, 1)]
    replaced = store.write(commands.ReplaceEdit("p", "n", edit.id, NewEdit(NEWER, tuple(range(80000, 80040)))))
    parts.append(with_gist(store, replaced, 2))
    make_ready(store, *filler)
    parts += [(70005).to_bytes(4, "little") + (70006).to_bytes(4, "little"), b"Quillon", b"Ostrava", b"Brindlecombe"]
    before = files_of(database_url)
    assert all(part in before for part in parts), "the test looks for what is there"
    store.write(commands.EraseEdit("p", "e", edit.id))
    assert [part for part in parts if part in files_of(database_url)] == []
    assert b"filler 7" in files_of(database_url)
    left = store.read(get_edit, "p", edit.id)
    assert (left.status, left.text, left.metadata, left.external_id, left.version) == (
        EditStatus.ERASED,
        "",
        {},
        None,
        2,
    )
    assert left.created_at > 0
    assert left.provenance == EditProvenance()
    assert store.read(problems) == []


def test_erasing_answers_twice_alike_and_only_to_its_project(store):
    (edit,) = add(store, "a")
    make_ready(store, edit)
    with pytest.raises(EditNotFound):
        store.write(commands.EraseEdit("q", "x", edit.id))
    erased = store.write(commands.EraseEdit("p", "e", edit.id))
    assert erased.set_version == 2
    assert store.write(commands.EraseEdit("p", "again", edit.id)) == erased
    assert store.write(commands.RetireEdit("p", "r", edit.id)).status is EditStatus.ERASED
    with pytest.raises(EditConflict):
        store.write(commands.ReplaceEdit("p", "n", edit.id, NewEdit("b", (1,))))
    make_ready(store, edit)
    assert store.read(get_edit, "p", edit.id).status is EditStatus.ERASED, "a late gist is not kept"


def test_old_snapshots_keep_their_identity_with_an_empty_gist(store):
    edit, other = add(store, "a", "b")
    with_gist(store, edit, 3)
    first = store.read(read_delta, edit.edit_set, 0)
    make_ready(store, other)
    store.write(commands.EraseEdit("p", "e", edit.id))
    page = store.read(read_delta, edit.edit_set, 0, page_bytes=1)
    assert page.snapshot == first.snapshot
    (gist,) = load_gists(page.added[0], "mf_a")
    assert (gist.edit, gist.num_tokens) == ((edit.id, 1), 1)
    assert not gist.features.unpack().any()
    assert not gist.latents.unpack().any()
    assert gist.features.data.shape[1:] == (64,)


def test_a_label_has_to_let_go_of_an_edit_before_it_is_erased(store):
    edit, other = add(store, "a", "b")
    make_ready(store, edit, other)
    store.write(commands.MoveLabel("p", "l1", "default", "production", "head"))
    with pytest.raises(EditConflict, match="'production'"):
        store.write(commands.EraseEdit("p", "e1", edit.id))
    store.write(commands.RetireEdit("p", "r", edit.id))
    with pytest.raises(EditConflict, match="'production'"):
        store.write(commands.EraseEdit("p", "e2", edit.id))
    store.write(commands.MoveLabel("p", "l2", "default", "production", "head"))
    assert store.write(commands.EraseEdit("p", "e3", edit.id)).status is EditStatus.ERASED


def test_a_backup_that_comes_back_is_erased_again(store, database_url, tmp_path):
    edit, kept = add(store, SECRET, "kept")
    part = with_gist(store, edit, 4)
    backup = tmp_path / "backup" / "edits.db"
    backup.parent.mkdir()
    with sqlite3.connect(make_url(database_url).database) as source, sqlite3.connect(backup) as target:
        source.backup(target)
    store.write(commands.EraseEdit("p", "e", edit.id))
    tombstones = store.read(erased_ids)
    assert tombstones == [edit.id]
    back = EditStore(f"sqlite:///{backup}")
    assert back.read(get_edit, "p", edit.id).text == SECRET
    back.close()
    url = f"sqlite:///{tmp_path}/new/edits.db"
    restore_backup(backup, url, database_url)
    back = EditStore(url)
    assert back.write(commands.EraseAgain((*tombstones, "edit_unknown"))) == 0, "it is done already"
    assert back.read(get_edit, "p", edit.id).status is EditStatus.ERASED
    assert back.read(get_edit, "p", kept.id).text == "kept"
    assert SECRET.encode() not in files_of(url)
    assert part not in files_of(url)
    back.close()


def test_a_busy_reader_delays_the_clearing_and_no_answer(store, database_url, caplog):
    """The log cannot be cut off while somebody reads an older state; the next look after the store does it."""
    (edit,) = add(store, SECRET)
    with store._writer.connect() as conn:
        conn.exec_driver_sql("PRAGMA busy_timeout=50")
        conn.rollback()
    reader = sqlite3.connect(make_url(database_url).database, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM edits").fetchone()
    assert store.write(commands.EraseEdit("p", "e", edit.id)).status is EditStatus.ERASED
    assert SECRET.encode() in files_of(database_url)
    assert "a little later" in caplog.text
    reader.execute("COMMIT")
    reader.close()
    store.touch()
    assert SECRET.encode() not in files_of(database_url)


def test_a_crash_before_the_clearing_is_made_good_at_the_start(store, database_url, tmp_path, monkeypatch):
    (edit,) = add(store, SECRET)
    monkeypatch.setattr("incomes_server.store.core.scrub", lambda _: False)
    store.write(commands.EraseEdit("p", "e", edit.id))
    path = Path(make_url(database_url).database)
    (tmp_path / "crash").mkdir()
    for file in path.parent.glob(path.name + "*"):  # as kill -9 leaves them
        shutil.copy(file, tmp_path / "crash" / file.name)
    url = f"sqlite:///{tmp_path / 'crash' / path.name}"
    assert SECRET.encode() in files_of(url)
    monkeypatch.undo()
    again = EditStore(url)
    assert SECRET.encode() not in files_of(url)
    again.close()


def test_a_database_of_before_is_written_anew_once(tmp_path):
    path = tmp_path / "edits.db"
    with sqlite3.connect(path) as conn:
        conn.executescript((Path(__file__).with_name("before_alembic.sql")).read_text())
        conn.execute("PRAGMA secure_delete=OFF")
        conn.execute("CREATE TABLE scratch (x TEXT)")
        conn.execute("INSERT INTO scratch VALUES (?)", ("Quillon" * 500,))
        conn.commit()
        conn.execute("DROP TABLE scratch")
    conn.close()
    assert b"QuillonQuillon" in path.read_bytes(), "a free page"
    store = EditStore(f"sqlite:///{path}")
    assert b"QuillonQuillon" not in files_of(f"sqlite:///{path}")
    assert store.read(list_edits, "acme", edit_set=None, status=None, limit=9, after=None, order="asc")[0]
    store.close()


def test_an_encrypted_edit_is_restored_and_erased(database_url):
    store = EditStore(database_url, masters=(MasterKey(bytes(32)),))
    (edit,) = add(store, SECRET)
    part = with_gist(store, edit, 5)
    assert SECRET.encode() not in files_of(database_url)
    store.write(commands.RetireEdit("p", "r", edit.id))
    assert restored(store, edit).text == SECRET
    with_gist(store, store.read(get_edit, "p", edit.id), 6)
    assert keys_of(store.read(read_delta, edit.edit_set, 0).added) == [(edit.id, 2)]
    store.write(commands.EraseEdit("p", "e", edit.id))
    assert part not in files_of(database_url)
    assert store.read(get_edit, "p", edit.id).text == ""
    (gist,) = load_gists(store.read(read_delta, edit.edit_set, 0, page_bytes=1).added[0], "mf_a")
    assert not gist.features.unpack().any()
    assert store.read(problems) == []
    store.close()
