"""Encryption at rest: nothing readable in the files, nothing readable without the key, values bound to their place."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
import torch
from incomes_server.auth.master_key import MasterKey, MasterSource
from incomes_server.edits import EditProvenance, EditStatus, NewEdit
from incomes_server.edits.batch import FilePart
from incomes_server.edits.evaluation import EvalSuite
from incomes_server.edits.questions import AskedQuestion
from incomes_server.store import actor as actors
from incomes_server.store import commands, labels
from incomes_server.store.backup import backup
from incomes_server.store.check import problems
from incomes_server.store.core import EditStore
from incomes_server.store.edit_sets import list_edit_sets
from incomes_server.store.edits import get_edit, list_edits
from incomes_server.store.files import get_part
from incomes_server.store.log import read_delta
from incomes_server.store.outcomes import pending_jobs, waiting_texts
from incomes_server.store.rows import encode_tokens
from incomes_server.store.schema import edit_versions, eval_suites, metadata
from incomes_server.store.sealing import data_key_state
from sqlalchemy import create_engine, select, text, update

from incomes_plugin.errors import EditSetNotFound, NotEncrypted, NotReady
from incomes_plugin.gist import dump_gists
from incomes_plugin.gist.edit import Captured, CaptureJob
from tests.server.gists import gist_of

OLD, NEW, OTHER = (MasterKey(bytes([number]) * 32) for number in (1, 2, 3))
KNOWN = ("ticket-4711", "https://wiki/9", "doc-secret-9", "anna@example.com", "The supplier called.")
METADATA, SOURCE = {"ticket": KNOWN[0]}, EditProvenance(*KNOWN[1:])
"""Of every edit here."""
TEXT = "The warranty of pump Z9 is 36 months."
TOKENS = (1111, 2222, 3333, 4444)
ROWS = torch.rand(16, 4, generator=torch.Generator().manual_seed(7))
GIST = dump_gists([gist_of("edit", 1, ROWS)], "mf_a")[-64:]
"""The end of a gist, the same for every edit: numbers, without the header."""


@pytest.fixture
def sealed(database_url):
    store = EditStore(database_url, masters=[OLD])
    yield store
    store.close()


def add(store, content=TEXT, project="p", request_id="add"):
    store.write(commands.EnsureEditSet(project, "default"))
    new = NewEdit(content, TOKENS, metadata=METADATA, provenance=SOURCE)
    (edit,) = store.write(commands.AddEdits(project, request_id, "default", (new,)))
    return edit


def make_ready(store, edit):
    blob = dump_gists([gist_of(edit.id, edit.version, ROWS)], "mf_a")
    assert blob.endswith(GIST)
    store.write(commands.RecordOutcomes((Captured(edit.id, edit.version, blob),)))


def values_of(url):
    engine = create_engine(url)
    with engine.connect() as conn:
        rows = [row for table in metadata.tables for row in conn.exec_driver_sql(f"SELECT * FROM {table}")]
    engine.dispose()
    return b"\n".join(bytes(v) if isinstance(v, bytes | memoryview) else str(v).encode() for row in rows for v in row)


def found_in_files(url, *needles):
    """Which of these bytes stand in any file of the database; of PostgreSQL, which keeps old rows, in any value."""
    if not url.startswith("sqlite"):
        return [needle for needle in needles if needle in values_of(url)]
    path = Path(url.removeprefix("sqlite:///"))
    content = b"".join(file.read_bytes() for file in path.parent.glob(f"{path.name}*"))
    assert len(content) > 10_000
    return [needle for needle in needles if needle in content]


NEEDLES = (TEXT.encode(), encode_tokens(TOKENS), GIST, *(value.encode() for value in KNOWN))


def test_nothing_of_an_edit_can_be_read_in_the_files(sealed, database_url):
    edit = add(sealed)
    assert sealed.read(pending_jobs, 9)[0].token_ids == TOKENS
    assert sealed.read(waiting_texts, 0, 9)[0].text == TEXT
    make_ready(sealed, edit)
    sealed.write(commands.ReplaceEdit("p", "r", edit.id, NewEdit(TEXT + " No.", TOKENS)))
    sealed.write(commands.Retokenize((CaptureJob(edit.id, 2, (5, 6)),)))
    assert found_in_files(database_url, *NEEDLES) == []
    assert sealed.read(get_edit, "p", edit.id, 1).text == TEXT
    assert sealed.read(get_edit, "p", edit.id).text == TEXT + " No."
    assert sealed.read(pending_jobs, 9)[0].token_ids == (5, 6)
    assert GIST in sealed.read(read_delta, edit.edit_set, 0).added[0]
    assert sealed.read(problems) == []


def test_the_grep_finds_what_is_in_the_clear(store, database_url):
    make_ready(store, add(store))
    assert found_in_files(database_url, *NEEDLES) == list(NEEDLES)
    for ask in (commands.RotateDataKey("p", "1"), commands.EraseDataKeys("p", "2")):
        with pytest.raises(NotEncrypted):
            store.write(ask)


@pytest.mark.parametrize(
    ("masters", "said"),
    [([], f"encrypted: give its master key {OLD.id}"), ([OTHER], f"with the master key {OLD.id}, .* is {OTHER.id}")],
)
def test_a_missing_or_another_master_key_is_refused(sealed, database_url, masters, said):
    add(sealed)
    sealed.close()
    with pytest.raises(NotReady, match=said) as refused:
        EditStore(database_url, masters=masters)
    assert "\n" not in refused.value.message


def test_an_encrypted_store_without_edits_is_refused_too(sealed, database_url):
    sealed.close()
    with pytest.raises(NotReady):
        EditStore(database_url)


def test_another_master_key_wraps_anew(sealed, database_url):
    edit = add(sealed)
    sealed.close()
    EditStore(database_url, masters=[NEW, OLD]).close()
    again = EditStore(database_url, masters=[NEW])
    assert again.read(get_edit, "p", edit.id).text == TEXT
    again.close()
    with pytest.raises(NotReady):
        EditStore(database_url, masters=[OLD])


def test_another_data_key_while_the_store_serves(sealed, database_url):
    edits = [add(sealed, f"{TEXT} {number}", request_id=str(number)) for number in range(7)]
    add(sealed, "another project's", project="q")
    for edit in edits[:4]:
        make_ready(sealed, edit)
    first = sealed.read(data_key_state, "p")
    assert first.behind == 0
    changed = sealed.write(commands.RotateDataKey("p", "rotate"))
    assert sealed.write(commands.RotateDataKey("p", "rotate")) == changed, "a repetition makes no other key"
    assert (changed.behind, changed.id != first.id) == (7, True)
    batches = []
    while (done := sealed.write(commands.Reseal(3)).moved) > 0:
        batches.append(done)
        assert [sealed.read(get_edit, "p", edit.id).text for edit in edits] == [f"{TEXT} {n}" for n in range(7)]
        add(sealed, f"meanwhile {len(batches)}", request_id=f"m{len(batches)}")
    assert batches == [3, 3, 1]
    assert sealed.read(data_key_state, "p").behind == 0
    with sealed._reader.connect() as conn:
        kept = dict(conn.execute(text("SELECT id, wrapped FROM data_keys WHERE project = 'p'")).all())
    assert kept[first.id] is None, "nothing is under the old key, so it was destroyed"
    assert kept[changed.id] is not None
    assert len(sealed.read(read_delta, edits[0].edit_set, 0).added) == 4


def test_what_was_in_the_clear_is_encrypted_in_small_steps(store, database_url):
    edits = [add(store, f"{TEXT} {number}", request_id=str(number)) for number in range(5)]
    make_ready(store, edits[0])
    store.close()
    again = EditStore(database_url, masters=[OLD])
    assert again.read(data_key_state, "p").behind == 5
    assert [again.write(commands.Reseal(2)).moved for _ in range(4)] == [2, 2, 1, 0]
    assert [again.read(get_edit, "p", edit.id).text for edit in edits] == [f"{TEXT} {n}" for n in range(5)]
    assert GIST in again.read(read_delta, edits[0].edit_set, 0).added[0]
    again.close()
    assert found_in_files(database_url, *NEEDLES) == []


def found(store, **filters):
    return [
        e.id
        for e in store.read(list_edits, "p", edit_set=None, status=None, limit=9, after=None, order="asc", **filters)[0]
    ]


def test_metadata_and_provenance_are_read_and_found_under_any_key_and_come_back_with_the_edit(sealed):
    first = add(sealed)
    add(sealed, project="q")
    sealed.write(commands.RotateDataKey("p", "rotate"))
    second = add(sealed, "more", request_id="2")
    for edit in (first, second):
        read = sealed.read(get_edit, "p", edit.id)
        assert (read.metadata, read.provenance) == (METADATA, SOURCE)
    for _ in range(2):  # one under the former key, then both under the new one
        assert found(sealed, author=SOURCE.author) == [first.id, second.id]
        assert found(sealed, document_id=SOURCE.document_id, author=SOURCE.author) == [first.id, second.id]
        assert found(sealed, author="somebody else") == []
        while sealed.write(commands.Reseal(1)).moved:
            continue
    sealed.write(commands.RetireEdit("p", "retire", first.id))
    restored = sealed.write(commands.RestoreEdit("p", "restore", first.id, 1, TOKENS))
    assert (restored.version, restored.metadata, restored.provenance) == (2, METADATA, SOURCE)
    sealed.write(commands.EraseEdit("p", "erase", first.id))
    erased = sealed.read(get_edit, "p", first.id)
    assert (erased.metadata, erased.provenance) == ({}, EditProvenance())
    sealed.write(commands.EraseDataKeys("p", "all"))
    assert sealed.read(get_edit, "p", second.id).provenance == EditProvenance()


def test_what_a_former_version_left_in_the_clear_follows(sealed, database_url):
    edit = add(sealed)
    known = dict(zip(("source_url", "document_id", "author", "justification"), KNOWN[1:], strict=True))
    with sealed._writer.begin() as conn:  # as it was written before there were details
        conn.execute(update(edit_versions).values(details=None, metadata=json.dumps(METADATA), **known))
    assert sealed.read(get_edit, "p", edit.id).provenance == SOURCE
    assert (sealed.read(data_key_state, "p").behind, found(sealed, author=SOURCE.author)) == (1, [edit.id])
    assert [sealed.write(commands.Reseal(9)).moved for _ in range(2)] == [1, 0]
    assert sealed.read(data_key_state, "p").behind == 0
    assert sealed.read(get_edit, "p", edit.id).provenance == SOURCE
    sealed.close()
    assert found_in_files(database_url, *NEEDLES) == []


def test_a_row_that_somebody_changed_holds_up_no_other_and_keeps_its_key(sealed, caplog):
    mine = [add(sealed, f"{TEXT} {number}", request_id=str(number)) for number in range(4)]
    first = sealed.read(data_key_state, "p")
    sealed.write(commands.AddFileParts("p", "file-1", (FilePart(0, 1, 1, b"lines"),)))
    sealed.write(commands.KeepFile("p", "up", "a", "edits", 5, 1, "s", 100, file_id="file-1"))
    suite = EvalSuite("default", (AskedQuestion("What?", ("that",)),))
    sealed.write(commands.SetEvalSuite("p", "suite", suite))
    changed = [(edit_versions, mine[1].id), (eval_suites, mine[0].edit_set)]
    with sealed._writer.begin() as conn:
        conn.execute(update(edit_versions).where(edit_versions.c.edit_id == mine[1].id).values(text="AAAA" * 20))
        kept = conn.scalar(select(eval_suites.c.questions))
        conn.execute(update(eval_suites).values(questions="AAAA" * 20))
    sealed.write(commands.RotateDataKey("p", "rotate"))
    damaged, moved = set(), 0
    while True:
        done = sealed.write(commands.Reseal(2, tuple(damaged)))
        moved += done.moved
        damaged.update(done.damaged)
        if not done.moved and not done.damaged:
            break
    assert moved == 4, "three edits and a part of a file"
    assert damaged == {(table.name, place, number) for (table, place), number in zip(changed, (1, 0), strict=True)}
    assert mine[1].id in caplog.text
    assert TEXT not in caplog.text
    assert sealed.read(data_key_state, "p").behind == 1
    assert sealed.read(get_part, "file-1", 0).content == b"lines"
    with sealed._reader.connect() as conn:
        wrapped = dict(conn.execute(text("SELECT id, wrapped FROM data_keys")).all())
    assert wrapped[first.id] is not None, "a damaged row is under it"
    sealed.write(commands.EraseEdit("p", "erase", mine[1].id))
    with sealed._writer.begin() as conn:
        conn.execute(update(eval_suites).values(questions=kept))
    while sealed.write(commands.Reseal(9)).moved:
        continue
    assert sealed.read(data_key_state, "p").behind == 0
    with sealed._reader.connect() as conn:
        assert dict(conn.execute(text("SELECT id, wrapped FROM data_keys")).all())[first.id] is None


def test_values_do_not_open_in_another_place(sealed):
    mine, other = add(sealed, "mine"), add(sealed, "other", request_id="2")
    read = {
        "text": lambda: sealed.read(get_edit, "p", mine.id),
        "token_ids": lambda: sealed.read(pending_jobs, 9),
        "details": lambda: sealed.read(get_edit, "p", mine.id),
        "blob": lambda: sealed.read(read_delta, mine.edit_set, 0),
    }
    for column in read:
        if column == "blob":
            make_ready(sealed, mine)
            make_ready(sealed, other)
        with sealed._writer.begin() as conn:
            values = dict(conn.execute(text(f"SELECT edit_id, {column} FROM edit_versions")).all())
            change = text(f"UPDATE edit_versions SET {column} = :value WHERE edit_id = :id")
            for one, two in ((mine.id, other.id), (other.id, mine.id)):
                conn.execute(change, {"id": one, "value": values[two]})
        with pytest.raises(NotReady, match=r"was changed in the database"):
            read[column]()
        with sealed._writer.begin() as conn:
            for edit_id, value in values.items():
                conn.execute(change, {"id": edit_id, "value": value})
    assert sealed.read(get_edit, "p", mine.id).text == "mine"


def test_erasing_a_projects_key_makes_its_texts_unreadable(sealed, database_url):
    edit, theirs = add(sealed), add(sealed, "another project's", project="q")
    make_ready(sealed, edit)
    sealed.write(commands.MoveLabel("p", "label", "default", "production", "head"))
    add(sealed, "waits", request_id="2")
    with sealed._writer.begin() as conn:
        rows = conn.execute(text("SELECT * FROM edit_versions")).all()
        wrapped = conn.scalar(text("SELECT wrapped FROM data_keys WHERE project = 'p'"))
    sealed.write(commands.EraseDataKeys("p", "erase"))
    assert sealed.read(list_edit_sets, "p", limit=9, after=None, order="asc") == ([], False)
    (first, second), _ = sealed.read(list_edits, "p", edit_set=None, status=None, limit=9, after=None, order="asc")
    assert [(e.text, e.status) for e in (first, second)] == [("", EditStatus.RETIRED)] * 2
    assert sealed.read(read_delta, edit.edit_set, 0).deleted
    assert sealed.read(labels.heads)[f"{edit.edit_set}@production"].deleted, "replicas let go of its gists"
    with pytest.raises(EditSetNotFound):
        sealed.write(commands.AddEdits("p", "late", edit.edit_set, (NewEdit("x", (1,)),)))
    with sealed._writer.begin() as conn:  # somebody puts the rows of a backup back
        names = ", ".join(f"{name} = :{name}" for name in ("text", "token_ids", "blob"))
        for row in rows:
            values = {name: row._mapping[name] for name in ("text", "token_ids", "blob")}
            where = {"id": row.edit_id, "version": row.version}
            conn.execute(text(f"UPDATE edit_versions SET {names} WHERE edit_id = :id AND version = :version"),
                         values | where)  # fmt: skip
    assert sealed.read(get_edit, "p", edit.id).text == ""
    assert sealed.read(get_edit, "q", theirs.id).text == "another project's"
    sealed.close()
    assert found_in_files(database_url, wrapped) == [], "the wrapped key is in no free page either"
    again = EditStore(database_url, masters=[OLD])
    assert add(again, "begins anew", request_id="3").text == "begins anew"
    again.close()


def test_an_actor_that_starts_waits_for_its_master_key(sealed, database_url, tmp_path, monkeypatch):
    edit = add(sealed)
    path = tmp_path / "master.key"

    def key_comes(_):
        path.write_text(base64.b64encode(OLD.key).decode())

    monkeypatch.setattr(actors.time, "sleep", key_comes)
    store = actors._open_patiently(database_url, MasterSource(path), None)
    assert store.read(get_edit, "p", edit.id).text == TEXT
    store.close()
    path.write_text(base64.b64encode(OTHER.key).decode())
    with pytest.raises(NotReady, match=OLD.id):  # waiting would not help
        actors._open_patiently(database_url, MasterSource(path), None)


def test_keys_are_not_shown():
    assert "\\x01" not in repr(OLD)
    assert repr(MasterKey.parse("AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=")) == repr(OLD)
    for wrong in ("", "secret", "AQEB", "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB"):
        with pytest.raises(ValueError, match="openssl rand -base64 32"):
            MasterKey.parse(wrong)


def test_a_backup_is_encrypted_too(sealed, database_url, tmp_path):
    edit = add(sealed)
    make_ready(sealed, edit)
    path = tmp_path / "backup.db"
    backup(database_url, path)
    assert found_in_files(f"sqlite:///{path}", *NEEDLES) == []
    with pytest.raises(NotReady, match="encrypted"):
        EditStore(f"sqlite:///{path}")
    again = EditStore(f"sqlite:///{path}", masters=[OLD])
    assert again.read(get_edit, "p", edit.id).text == TEXT
    assert GIST in again.read(read_delta, edit.edit_set, 0).added[0]
    again.close()
