"""Files and imports in the store: each part once, whoever sends it and however often; every line accounted for."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from incomes_server.auth.master_key import MasterKey
from incomes_server.auth.principal import Principal, Scope
from incomes_server.edits import EditStatus, NewEdit
from incomes_server.edits.batch import BatchStatus, FilePart, ImportedLine, LineError
from incomes_server.store import commands
from incomes_server.store.audit import list_events
from incomes_server.store.batches import get_batch, lines_after, list_batches, unfinished, versions_reached
from incomes_server.store.core import EditStore
from incomes_server.store.edits import list_edits
from incomes_server.store.files import get_file, get_part, list_files

from incomes_plugin.errors import (
    BatchNotFound,
    FileInUse,
    IdempotencyKeyReuse,
    InvalidValue,
    NotReady,
    QuotaExceeded,
    StoredFileNotFound,
)
from tests.server.gists import outcome_of

LIMIT = 1000


def upload(store, parts=2, lines=3, *, project="p", request_id="up", file_id="file-1", size=10, limit=LIMIT):
    """A file of so many parts, with so many lines each."""
    made = tuple(FilePart(i, 1 + i * lines, lines, bytes([i]) * size) for i in range(parts))
    store.write(commands.AddFileParts(project, file_id, made))
    return store.write(
        commands.KeepFile(
            project, request_id, "kb.jsonl", "edits", parts * size, parts, f"{parts}{size}", limit, file_id=file_id
        )
    )


def create(store, *, request_id="create", dry_run=False, input_file="file-1", project="p"):
    store.write(commands.EnsureEditSet(project, "default"))
    return store.write(commands.CreateBatch(project, request_id, input_file, "default", dry_run, {"a": "b"}))


def line(number, *, text="x", custom_id=None, **more):
    return ImportedLine(number, custom_id or f"c{number}", NewEdit(text, (1, 2), more.pop("external_id", None)), **more)


def add(store, batch, position, lines):
    return store.write(commands.ImportLines(batch.project, batch.id, position, tuple(lines)))


def texts(store, project="p"):
    found, _ = store.read(list_edits, project, edit_set=None, status=None, limit=100, after=None, order="asc")
    return [edit.text for edit in found]


def settle(store, batch, upto, failed=()):
    return store.write(commands.SettleLines(batch.id, batch.settled, upto, tuple(failed)))


def test_a_file_is_there_when_it_is_complete(store):
    file = upload(store)
    assert (file.num_bytes, file.num_lines, file.num_parts, file.has_content) == (20, 6, 2, True)
    assert store.read(get_part, file.id, 1) == FilePart(1, 4, 3, b"\1" * 10)
    assert store.read(list_files, "p", purpose="edits", limit=9, after=None, order="asc") == ([file], False)
    for query in (lambda: store.read(get_file, "other", file.id), lambda: store.read(get_part, file.id, 2)):
        with pytest.raises(StoredFileNotFound):
            query()


def test_an_upload_that_comes_again_is_one_file(store, database_url):
    first = upload(store)
    assert upload(store, file_id="file-2") == first
    with pytest.raises(IdempotencyKeyReuse):
        upload(store, file_id="file-3", size=11)
    store.prune_requests()
    for file_id in ("file-2", "file-3"):
        with pytest.raises(StoredFileNotFound):
            store.read(get_part, file_id, 0)
    assert store.read(get_part, "file-1", 0).num_lines == 3


def test_a_file_whose_parts_are_gone_and_one_too_many_are_refused(store):
    with pytest.raises(NotReady):
        store.write(commands.KeepFile("p", "r", "a", "edits", 20, 2, "s", LIMIT, file_id="file-1"))
    upload(store, size=400)
    with pytest.raises(QuotaExceeded, match="max_file_bytes_per_project"):
        upload(store, size=400, file_id="file-2", request_id="again")
    assert upload(store, size=400, file_id="file-3", project="q").project == "q"


def test_what_is_left_of_a_failed_upload_goes_and_a_kept_file_stays(store):
    store.write(commands.AddFileParts("p", "half", (FilePart(0, 1, 1, b"x"),)))
    kept = upload(store)
    for file_id in ("half", kept.id):
        store.write(commands.DropFileParts(file_id))
    with pytest.raises(StoredFileNotFound):
        store.read(get_part, "half", 0)
    assert store.read(get_part, kept.id, 1).num_lines == 3


def test_another_limit_between_two_tries_makes_no_other_request(store):
    first = upload(store)
    assert upload(store, file_id="file-2", limit=2 * LIMIT) == first


def test_a_set_that_wants_a_second_person_takes_no_lines(store):
    """The server adds them: who uploaded the file could approve what is in it alone."""
    store.write(commands.CreateEditSet("p", "rules", "rules", two_person=True))
    upload(store, parts=1)
    add(store, create(store), 0, [line(1, edit_set="rules"), line(2), line(3, edit_set="rules")])
    assert texts(store) == ["x"]
    found = store.read(lines_after, store.read(unfinished, 0, 1)[0].id, 0, 9)
    assert [o.error and o.error.code for o in found] == ["edit_conflict", None, "edit_conflict"]


def test_imports_that_cannot_go_on_hold_up_no_others(store):
    for i in range(3):
        upload(store, request_id=f"up {i}", file_id=f"file-{i}")
    made = [create(store, request_id=f"create {i}", input_file=f"file-{i}") for i in range(3)]
    assert [store.read(unfinished, skip, 1) for skip in range(4)] == [[made[0]], [made[1]], [made[2]], []]


def test_each_part_is_imported_once(store, database_url):
    upload(store)
    batch = create(store)
    assert (batch.status, batch.total, batch.num_parts, batch.metadata) == (BatchStatus.VALIDATING, 6, 2, {"a": "b"})
    first = [line(1), ImportedLine(2, "c2", error=LineError("invalid_value", "bad", "text")), line(3)]
    for _ in range(3):
        batch = add(store, batch, 0, first)
    assert (batch.status, batch.position, batch.failed) == (BatchStatus.IN_PROGRESS, 1, 1)
    again = EditStore(database_url)
    assert again.read(unfinished, 0, 10) == [batch]
    batch = add(again, batch, 1, [line(4), line(5), line(6)])
    again.close()
    assert (batch.status, len(texts(store))) == (BatchStatus.FINALIZING, 5)
    assert add(store, batch, 1, [line(4)]) == batch
    found = store.read(lines_after, batch.id, 0, 10)
    assert [(o.number, o.edit_id is None, o.error is None) for o in found] == [(n, n == 2, n != 2) for n in range(1, 7)]
    keys = [o.edit_id for o in found if o.edit_id]
    store.write(commands.RecordOutcomes(tuple(outcome_of(key, 1) for key in keys)))
    gone = (6, LineError("compression_failed", "dull"))
    batch = settle(store, settle(store, batch, 3), 6, [gone])
    assert (batch.settled, batch.completed, batch.failed) == (6, 4, 2)
    assert store.write(commands.SettleLines(batch.id, 3, 6, (gone,))) == batch
    assert set(store.read(versions_reached, batch.id).values()) == {1}
    batch = store.write(commands.FinishBatch(batch.id, 100, 50))
    assert batch.status is BatchStatus.COMPLETED
    assert batch.completed + batch.failed == batch.total
    results = [store.read(get_file, "p", name) for name in (batch.output_file, batch.error_file)]
    assert [(f.num_bytes, f.num_lines, f.batch, f.of_errors) for f in results] == [
        (100, 4, batch.id, False),
        (50, 2, batch.id, True),
    ]
    assert store.write(commands.FinishBatch(batch.id, 1, 1)) == batch
    assert not store.read(get_file, "p", "file-1").has_content
    with pytest.raises(StoredFileNotFound):
        store.read(get_part, "file-1", 0)
    with pytest.raises(InvalidValue):
        create(store, request_id="second")
    assert store.read(unfinished, 0, 10) == []


def test_what_an_import_writes_is_its_creators_in_the_edits_and_in_the_audit_log(store):
    creator = commands.Origin(Principal("p", "key_anna", frozenset(Scope)), "req_1")
    upload(store)
    store.write(commands.EnsureEditSet("p", "default"))
    command = commands.CreateBatch("p", "create", "file-1", "default", False, {})
    batch = store.write(commands.Sent(command, creator))
    assert batch.created_by == "key_anna"
    add(store, batch, 0, [line(1), line(2)])
    store.write(commands.AddEdits("p", "other", "default", (NewEdit("the server's own", (1,)),)))
    edits, _ = store.read(list_edits, "p", edit_set=None, status=None, limit=9, after=None, order="asc")
    assert [edit.written_by for edit in edits] == ["key_anna", "key_anna", "server"]
    events, _ = store.read(list_events, "p", limit=9, after=None, order="desc")
    assert [(event.action, event.actor) for event in events[:2]] == [
        ("add_edits", "server"),
        ("import_lines", "key_anna"),
    ]
    assert {change.target for change in events[1].changes} == {batch.id, edits[0].id, edits[1].id}


def test_a_line_that_cannot_be_added_fails_alone(store):
    upload(store)
    batch = create(store)
    lines = [line(1, external_id="a"), line(2, external_id="b"), line(3, external_id="a"), line(4, edit_set="none")]
    add(store, batch, 0, [*lines, line(5, custom_id="c1"), ImportedLine(6, None, error=LineError("x", "y"))])
    add(store, batch, 1, [line(7, external_id="b"), line(8, custom_id="c2"), line(9)])
    codes = {o.number: o.error.code for o in store.read(lines_after, batch.id, 0, 20) if o.error}
    assert codes == {
        3: "edit_conflict", 4: "edit_set_not_found", 5: "invalid_value", 6: "x", 7: "edit_conflict", 8: "invalid_value",
    }  # fmt: skip
    assert len(texts(store)) == 3


def test_a_dry_run_finds_the_same_and_writes_nothing(store):
    upload(store)
    store.write(commands.EnsureEditSet("p", "default"))
    store.write(commands.AddEdits("p", "r", "default", (NewEdit("there", (1,), "a"),)))
    batch = create(store, dry_run=True)
    batch = add(store, batch, 0, [line(1, external_id="a"), line(2), line(3, edit_set="none")])
    batch = add(store, batch, 1, [line(4)])
    assert texts(store) == ["there"]
    found = store.read(lines_after, batch.id, 0, 20)
    assert [(o.edit_id, o.error and o.error.code) for o in found] == [
        (None, "edit_conflict"), (None, None), (None, "edit_set_not_found"), (None, None),
    ]  # fmt: skip
    store.write(commands.FinishBatch(settle(store, batch, 4).id, 1, 1))
    assert store.read(get_file, "p", "file-1").has_content, "the file can be imported after its dry run"


def test_a_cancelled_import_reads_no_more(store):
    upload(store)
    batch = create(store)
    add(store, batch, 0, [line(1)])
    with pytest.raises(FileInUse):
        store.write(commands.DeleteFile("p", "d", "file-1"))
    batch = store.write(commands.CancelBatch("p", "stop", batch.id))
    assert batch.status is BatchStatus.CANCELLING
    assert add(store, batch, 1, [line(2)]).position == 1
    batch = store.write(commands.FinishBatch(settle(store, batch, 1).id, 1, 1))
    assert (batch.status, texts(store)) == (BatchStatus.CANCELLED, ["x"])
    assert store.write(commands.CancelBatch("p", "late", batch.id)) == batch
    assert store.write(commands.DeleteFile("p", "d2", "file-1")) == "file-1"
    with pytest.raises(StoredFileNotFound):
        store.write(commands.DeleteFile("p", "d3", "file-1"))


def test_another_project_sees_nothing(store):
    upload(store)
    batch = create(store)
    with pytest.raises(StoredFileNotFound):
        create(store, project="q", request_id="x")
    for command in (commands.DeleteFile("q", "a", "file-1"), commands.CancelBatch("q", "b", batch.id)):
        with pytest.raises((StoredFileNotFound, BatchNotFound)):
            store.write(command)
    with pytest.raises(BatchNotFound):
        store.read(get_batch, "q", batch.id)
    assert store.read(list_batches, "q", limit=9, after=None, order="asc") == ([], False)
    assert add(store, batch, 0, [line(1)]).position == 1
    assert texts(store, "q") == []


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=6, max_size=30))
def test_parts_in_any_order_and_any_number_give_each_line_once(tmp_path_factory, sent):
    """Several runners, restarted ones among them, send parts that they think are next."""
    store = EditStore(f"sqlite:///{tmp_path_factory.mktemp('s')}/e.db")
    upload(store, parts=6, lines=2)
    batch = create(store)
    for position in [*sent, *range(6)]:
        batch = add(store, batch, position, [line(1 + 2 * position + i, text=f"{2 * position + i}") for i in (0, 1)])
    assert batch.status is BatchStatus.FINALIZING
    assert texts(store) == [str(i) for i in range(12)]
    assert [o.number for o in store.read(lines_after, batch.id, 0, 99)] == list(range(1, 13))
    found, _ = store.read(list_edits, "p", edit_set=None, status=EditStatus.PENDING, limit=99, after=None, order="asc")
    assert len(found) == 12
    store.close()


def test_an_uploaded_file_is_encrypted_and_goes_with_its_key(tmp_path):
    path = tmp_path / "sealed.db"
    store = EditStore(f"sqlite:///{path}", masters=[MasterKey(bytes(32))])
    secret = b"the text of a customer"
    store.write(commands.AddFileParts("p", "file-1", (FilePart(0, 1, 1, secret),)))
    store.write(commands.KeepFile("p", "r", "a", "edits", len(secret), 1, "s", LIMIT, file_id="file-1"))
    batch = create(store)
    store.write(commands.RotateDataKey("p", "rotate"))
    while store.write(commands.Reseal(10)).moved:
        continue
    assert store.read(get_part, "file-1", 0).content == secret
    store.write(commands.EraseDataKeys("p", "erase"))
    with pytest.raises(StoredFileNotFound):
        store.read(get_part, "file-1", 0)
    assert store.read(get_batch, "p", batch.id).position == 0
    store.close()
    assert all(secret not in each.read_bytes() for each in tmp_path.glob("sealed.db*"))


def test_a_file_from_before_the_encryption_goes_with_the_key_too(tmp_path):
    url, secret = f"sqlite:///{tmp_path}/late.db", b"the text of a customer"
    store = EditStore(url)
    store.write(commands.AddFileParts("p", "file-1", (FilePart(0, 1, 1, secret),)))
    store.write(commands.KeepFile("p", "r", "a", "edits", len(secret), 1, "s", LIMIT, file_id="file-1"))
    store.close()
    store = EditStore(url, masters=[MasterKey(bytes(32))])
    assert store.read(get_part, "file-1", 0).content == secret
    store.write(commands.EraseDataKeys("p", "erase"))
    with pytest.raises(StoredFileNotFound):
        store.read(get_part, "file-1", 0)
    store.close()
    assert all(secret not in each.read_bytes() for each in tmp_path.glob("late.db*"))
