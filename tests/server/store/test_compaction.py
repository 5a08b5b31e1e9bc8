"""History that nothing needs is forgotten, and what is left is what it was."""

import asyncio
import random

import pytest
from incomes_server.boot.ray_local import prepare_ray_environment
from incomes_server.edits import NewEdit
from incomes_server.replicas.sync import run_replica
from incomes_server.store import commands
from incomes_server.store.actor import EditStoreActor
from incomes_server.store.check import problems
from incomes_server.store.client import StoreClient
from incomes_server.store.compaction import MARK_EDITS, compaction_targets, gists_of_no_state
from incomes_server.store.core import EditStore
from incomes_server.store.edit_sets import get_edit_set
from incomes_server.store.edits import get_edit
from incomes_server.store.labels import get_label
from incomes_server.store.log import read_delta
from incomes_server.store.replica_table import ReplicaTable
from incomes_server.store.schema import edit_conflicts, edit_versions, log, revisions
from incomes_server.store.snapshots import list_snapshots
from sqlalchemy import func, insert, select

from incomes_plugin.errors import EditNotFound, SnapshotNotFound
from incomes_plugin.pool.snapshot import SnapshotRef
from tests.server.gists import keys_of, outcome_of
from tests.server.local import Local


def add(store, count, name="add"):
    """So many ready edits, one version of the set each."""
    store.write(commands.EnsureEditSet("p", "default"))
    new = tuple(NewEdit(f"{name} {i}", (1, 2)) for i in range(count))
    ids = [edit.id for edit in store.write(commands.AddEdits("p", name, "default", new))]
    for edit_id in ids:
        store.write(commands.RecordOutcomes((outcome_of(edit_id, 1),)))
    return ids


def replace(store, edit_id, version):
    store.write(commands.ReplaceEdit("p", f"{edit_id} {version}", edit_id, NewEdit(f"text {version}", (3,))))
    store.write(commands.RecordOutcomes((outcome_of(edit_id, version),)))


def retire(store, edit_id):
    store.write(commands.RetireEdit("p", f"retire {edit_id}", edit_id))


def head(store):
    return store.read(get_edit_set, "p", "default").snapshot


def compact(store, up_to=10**9):
    steps = 0
    while store.write(commands.Compact(head(store).edit_set, up_to)):
        steps += 1
        assert store.read(problems) == []
    return steps


def rows(store, table):
    return store.read(lambda conn: conn.scalar(select(func.count()).select_from(table)))


def whole(store, page_bytes=2000):
    """What a replica that starts gets, page by page: its content, and the sizes of the pages in edits."""
    content, position, sizes, end = {}, 0, [], head(store)
    while position < end.version:
        delta = store.read(read_delta, end.edit_set, position, page_bytes=page_bytes)
        assert delta.base == (SnapshotRef.empty(end.edit_set).advance(list(content), []).id if position else None)
        for key in delta.removed:
            del content[key]
        content |= dict(zip(keys_of(delta.added), delta.added, strict=True))
        after = SnapshotRef.empty(end.edit_set).advance(list(content), [])
        assert (after.id, after.num_edits) == (delta.snapshot.id, delta.snapshot.num_edits)
        assert delta.snapshot.version > position
        position = delta.snapshot.version
        sizes.append(len(delta.added))
    return content, sizes


def test_what_is_left_is_what_it_was_and_each_edit_is_read_once(store):
    ids = add(store, 500)
    for number in range(3):
        for edit_id in ids[:100]:
            replace(store, edit_id, number + 2)
    for edit_id in ids[100:150]:
        retire(store, edit_id)
    before, _ = whole(store, 10**9)
    assert rows(store, revisions) == 850
    assert compact(store) > 3
    after, sizes = whole(store)
    assert after.keys() == before.keys()
    assert sum(sizes) == 450 == rows(store, log)
    assert rows(store, revisions) <= 450 // MARK_EDITS + 1
    assert max(sizes) < 2 * MARK_EDITS + 256
    assert [s.snapshot for s in store.read(list_snapshots, "p", "default", limit=9, after=None, order="desc")[0]] == [
        head(store)
    ]
    replace(store, ids[0], 5)
    retire(store, ids[1])
    assert whole(store)[0].keys() == before.keys() - {(ids[0], 4), (ids[1], 4)} | {(ids[0], 5)}
    assert compact(store) == 1


def test_gists_go_when_no_state_has_them_and_so_do_texts_that_were_replaced(store):
    first, second = add(store, 2)
    replace(store, first, 2)
    retire(store, second)
    compact(store, 2)
    assert store.read(get_edit, "p", first, 1).text == "add 0"
    compact(store)
    with pytest.raises(EditNotFound):
        store.read(get_edit, "p", first, 1)
    gone = store.read(get_edit, "p", second)
    assert (gone.text, gone.gist_bytes, gone.status) == ("add 1", 0, "retired")
    with_gist = select(edit_versions.c.edit_id, edit_versions.c.version).where(edit_versions.c.blob.is_not(None))
    assert store.read(lambda conn: [tuple(row) for row in conn.execute(with_gist)]) == [(first, 2)]


def gists(store):
    """Versions that have one."""
    with_gist = select(edit_versions.c.edit_id, edit_versions.c.version).where(edit_versions.c.blob.is_not(None))
    return {tuple(row) for row in store.read(lambda conn: conn.execute(with_gist).all())}


def test_gists_of_versions_that_never_joined_go_too(store):
    """They are in no log that compaction walks along; what is remembered or may still join keeps its gist."""
    store.write(commands.EnsureEditSet("p", "default"))
    later = 4_000_000_000
    (held,) = store.write(commands.AddEdits("p", "held", "default", (NewEdit("a", (1,), effective_from=later),)))
    (waits,) = store.write(commands.AddEdits("p", "waits", "default", (NewEdit("b", (1,), effective_from=later),)))
    left, kept = add(store, 2)
    for edit in (held, waits):
        store.write(commands.RecordOutcomes((outcome_of(edit.id, 1),)))
    replace(store, held.id, 2)  # its first version never was in a snapshot
    retire(store, left)
    assert gists(store) == {(held.id, 1), (held.id, 2), (waits.id, 1), (left, 1), (kept, 1)}
    assert store.read(gists_of_no_state, 0) == [], "what is over for a shorter time than is remembered"
    found = store.read(gists_of_no_state, later)
    assert found == [(held.id, 1)], "an older state has the edit that was retired"
    store.write(commands.FreeGists(tuple(found)))
    assert gists(store) == {(held.id, 2), (waits.id, 1), (left, 1), (kept, 1)}
    assert store.read(gists_of_no_state, later) == store.read(problems) == []


def test_a_conflict_goes_with_a_version_that_is_deleted(store):
    first, second = add(store, 2)
    found = [
        {"edit_id": first, "version": 1, "other_id": second, "other_version": 1, "kind": "duplicate", "score": 1.0}
    ]
    found.append(found[0] | {"edit_id": second, "other_id": first})
    found.append(found[0] | {"version": 2})
    replace(store, first, 2)
    with store._writer.begin() as conn:
        conn.execute(insert(edit_conflicts), found)
    compact(store)
    left = store.read(lambda conn: conn.execute(select(edit_conflicts.c.edit_id, edit_conflicts.c.version)).all())
    assert [tuple(row) for row in left] == [(first, 2)]


def test_an_edit_whose_place_another_took_stays_to_be_read(store):
    (first,) = add(store, 1)
    new = NewEdit("the other", (1, 2), supersedes=(first,))
    (other,) = store.write(commands.AddEdits("p", "other", "default", (new,)))
    store.write(commands.RecordOutcomes((outcome_of(other.id, 1),)))
    compact(store)
    gone = store.read(get_edit, "p", first)
    assert (gone.status, gone.text, gone.gist_bytes) == ("superseded", "add 0", 0)


def test_a_label_keeps_history_from_its_version_on(store):
    ids = add(store, 4)
    store.write(commands.MoveLabel("p", "m", "default", "production", "2"))
    for edit_id in ids:
        retire(store, edit_id)
    compact(store)
    assert store.read(get_label, "p", "default", "production").snapshot.version == 2
    versions = [
        s.snapshot.version for s in store.read(list_snapshots, "p", "default", limit=9, after=None, order="asc")[0]
    ]
    assert min(versions) == 2
    with pytest.raises(SnapshotNotFound, match="has no snapshot '1'"):
        store.write(commands.MoveLabel("p", "n", "default", "staging", "1"))
    store.write(commands.MoveLabel("p", "o", "default", "production", "head"))
    compact(store)
    assert (rows(store, log), head(store).num_edits) == (0, 0)
    assert whole(store) == ({}, [0])


def test_a_state_is_remembered_for_as_long_as_the_setting_says(database_url):
    now = 1000.0
    store = EditStore(database_url, clock=lambda: now)
    add(store, 3)
    now = 2000.0
    add(store, 2, "later")
    edit_set = head(store).edit_set
    assert store.read(compaction_targets, 999) == {}
    assert store.read(compaction_targets, 1500) == {edit_set: 3}
    assert store.read(compaction_targets, 2000) == {edit_set: 5}
    store.close()


def test_a_deleted_set_is_forgotten_whole(store):
    add(store, 300)
    store.write(commands.DeleteEditSet("p", "d", "default"))
    edit_set = store.read(lambda conn: conn.scalar(select(revisions.c.edit_set)))
    while store.write(commands.Compact(edit_set, 10**9)):
        assert store.read(problems) == []
    assert (rows(store, log), rows(store, revisions)) == (0, 1)
    assert store.read(lambda conn: conn.scalar(select(func.count(edit_versions.c.blob)))) == 0
    delta = store.read(read_delta, edit_set, 7)
    assert delta.deleted


def test_what_a_replica_has_is_kept_and_one_that_is_not_known_yet_stops_it():
    table = ReplicaTable()
    assert table.least("eset_a", 9) == 9
    table.ack("one", {"eset_a": 5}, 0.0, wait_s=0, serving=True)
    table.ack("new", {}, 0.0, wait_s=0, serving=False)
    assert table.least("eset_a", 9) == 5
    table.restore(["back"], 0.0)
    assert table.least("eset_a", 9) == 0


class Pool:
    """Refuses a delta that does not start where it is, as the engine's does."""

    def __init__(self):
        self.content, self.at, self.lost = {}, None, []

    async def apply(self, delta):
        if delta.deleted:
            self.content, self.at = {}, None
            return
        if delta.base != self.at:
            raise SnapshotNotFound(f"delta starts at {delta.base}, the pool is at {self.at}")
        for key in delta.removed:
            del self.content[key]
        self.content |= dict(zip(keys_of(delta.added), delta.added, strict=True))
        self.at = delta.snapshot.id


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.02)


async def test_a_replica_whose_state_was_forgotten_starts_over(database_url):
    """It was cut off for longer than its lease; the store's memory is that short here."""
    prepare_ray_environment()
    store = EditStore(database_url)  # another server on the same database; the actor sees its writes within a second
    ids = add(store, 5)
    actor = EditStoreActor(database_url)
    client, pool = StoreClient(Local(actor)), Pool()
    serves = asyncio.Event()
    loop = run_replica(client, pool.apply, name="one", on_caught_up=serves.set, on_lost=pool.lost.append)
    task = asyncio.create_task(loop)
    await asyncio.wait_for(serves.wait(), 30)
    assert len(pool.content) == 5
    serves.clear()
    for edit_id in random.sample(ids, 3):
        retire(store, edit_id)
    compact(store)
    await asyncio.wait_for(serves.wait(), 30)
    await until(lambda: len(pool.content) == 2)
    assert "is loaded anew" in pool.lost[0]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not await client.tidy(0)
    actor._reader.shutdown()
    actor._writer.shutdown()
    for each in (actor._store, store):
        each.close()


def test_what_asks_for_a_forgotten_version_fails_alone(store):
    (edit_id,) = add(store, 1)
    new = store.write(commands.ReplaceEdit("p", "new", edit_id, NewEdit("new", (1, 2))))
    store.write(commands.RecordOutcomes((outcome_of(edit_id, new.version),)))
    compact(store)
    repeated = commands.AddEdits("p", "add", "default", (NewEdit("add 0", (1, 2)),))
    other = commands.AddEdits("p", "other", "default", (NewEdit("other", (1,)),))
    results = store.commit([repeated, other]).results
    assert [type(result) for result in results] == [EditNotFound, list]


def test_an_edit_that_another_superseded_keeps_its_record(store):
    """It can be looked at, and restored."""
    (edit_id,) = add(store, 1)
    new = NewEdit("new", (1, 2), supersedes=(edit_id,))
    (by,) = store.write(commands.AddEdits("p", "new", "default", (new,)))
    store.write(commands.RecordOutcomes((outcome_of(by.id, 1),)))
    compact(store)
    left = store.read(get_edit, "p", edit_id)
    assert (left.status_reason, left.gist_bytes) == (f"superseded by {by.id}", 0)
    back = store.write(commands.RestoreEdit("p", "back", edit_id, left.version, (1, 2)))
    assert (back.version, back.text) == (2, left.text)
