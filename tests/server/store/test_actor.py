"""The actor's logic in this process: polls, acknowledgements, leases, waits. Ray's part is in test_ray.py."""

import asyncio
import inspect
import pickle
import threading
import time

import pytest
from incomes_server.edits import EditStatus, NewEdit
from incomes_server.store import actor as actors
from incomes_server.store import commands, reads
from incomes_server.store.actor import EditStoreActor
from incomes_server.store.api_keys import tenancy
from incomes_server.store.core import replica_names
from incomes_server.store.counts import use_of_projects
from incomes_server.store.edit_sets import heads, news
from incomes_server.store.edits import get_edit

from incomes_plugin.errors import EditNotFound, EditSetNotFound, IncomesError, InvalidValue, NotReady
from tests.eventually import eventually
from tests.server.gists import outcome_of

LEASE_S = 0.4


@pytest.fixture
def open_actor(database_url):
    """Another actor on the same database, as after a restart or in another cluster; each is closed."""
    opened = []

    def open_one():
        opened.append(EditStoreActor(database_url, lease_s=LEASE_S))
        return opened[-1]

    yield open_one
    for each in opened:
        each._reader.shutdown()
        each._writer.shutdown()
        each._store.close()


@pytest.fixture
def actor(open_actor):
    return open_actor()


async def add(actor, *texts, request_id="add", edit_set="default"):
    await actor.write(commands.EnsureEditSet("p", edit_set))
    new = tuple(NewEdit(text, (1, 2)) for text in texts)
    return await actor.write(commands.AddEdits("p", request_id, edit_set, new))


async def make_ready(actor, *edits):
    await actor.write(commands.RecordOutcomes(tuple(outcome_of(edit.id, edit.version) for edit in edits)))


async def test_many_callers_share_commits(actor):
    await actor.write(commands.EnsureEditSet("p", "default"))
    groups = []
    commit = actor._store.commit
    actor._store.commit = lambda batch: groups.append(len(batch)) or commit(batch)
    writes = [commands.AddEdits("p", str(i), "default", (NewEdit("t", (i,)),)) for i in range(200)]
    results = await asyncio.gather(*map(actor.write, writes))
    assert len({edit.id for (edit,) in results}) == 200
    assert sum(groups) == 200
    assert len(groups) < 20


async def test_an_error_reaches_its_caller_only(actor):
    good, bad = await asyncio.gather(
        add(actor, "a"), actor.write(commands.RetireEdit("p", "r", "edit_nope")), return_exceptions=True
    )
    assert good[0].status is EditStatus.PENDING
    assert type(bad) is EditNotFound


async def test_a_poll_wakes_for_news_and_acknowledges(actor, monkeypatch):
    monkeypatch.setattr(actors, "OTHER_WRITER_CHECK_S", 3600)  # nothing but the commit ends the wait
    (edit,) = await add(actor, "a")
    waiting = asyncio.create_task(actor.poll("r1", {}, 3600, True))
    await asyncio.sleep(0.05)
    await make_ready(actor, edit)
    (delta,) = await asyncio.wait_for(waiting, 60)
    await actor.poll("r1", {}, 0, True)  # its lease is short again
    progress = await actor.wait_active(edit.edit_set, delta.snapshot.version, 0)
    assert (progress.live, progress.acked, progress.reached) == (1, 0, False)
    active = asyncio.create_task(actor.wait_active(edit.edit_set, delta.snapshot.version, 5))
    await asyncio.sleep(0)
    assert await actor.poll("r1", {edit.edit_set: delta.snapshot.version}, 0, True) == []
    assert (await active).reached


async def test_nobody_waits_for_a_replica_that_catches_up(actor):
    (edit,) = await add(actor, "a")
    await make_ready(actor, edit)
    await actor.poll("old", {edit.edit_set: 1}, 0, True)
    await actor.poll("new", {}, 0, False)
    assert (await actor.wait_active(edit.edit_set, 1, 0)).reached
    await actor.poll("new", {}, 0, True)
    assert not (await actor.wait_active(edit.edit_set, 1, 0)).reached


async def test_no_replica_is_not_active(actor):
    (edit,) = await add(actor, "a")
    progress = await actor.wait_active(edit.edit_set, 0, 0.05)
    assert (progress.live, progress.reached) == (0, False)
    with pytest.raises(EditSetNotFound):
        await actor.wait_active("eset_unknown", 1, 0)


async def test_a_silent_replica_is_waited_for_until_its_lease_ends(actor):
    (edit,) = await add(actor, "a")
    await make_ready(actor, edit)
    await actor.poll("dead", {}, 0, True)
    beating = asyncio.create_task(_beat(actor, "alive", {edit.edit_set: 1}))
    start_s = time.monotonic()
    progress = await actor.wait_active(edit.edit_set, 1, 5)
    beating.cancel()
    assert (progress.reached, progress.live) == (True, 1)
    assert LEASE_S / 2 < time.monotonic() - start_s < 3


async def _beat(actor, name, positions):
    await actor.poll(name, positions, 0, True)
    while True:
        await asyncio.sleep(LEASE_S / 4)
        await actor.heartbeat(name)


async def test_a_refusal_is_shown_until_the_replica_gets_over_it(actor):
    (edit,) = await add(actor, "a")
    await make_ready(actor, edit)
    await actor.poll("r1", {}, 0, True)
    await actor.nack("r1", edit.edit_set, 1, "PoolFull: no page")
    assert (await actor.wait_active(edit.edit_set, 1, 0)).nacks == {"r1": "PoolFull: no page"}
    (state,) = await actor.replicas()
    assert (state.name, state.positions, state.nacks) == ("r1", {}, {edit.edit_set: "PoolFull: no page"})
    await actor.poll("r1", {edit.edit_set: 1}, 0, True)
    assert (await actor.wait_active(edit.edit_set, 1, 0)).nacks == {}


async def test_a_restarted_store_waits_for_the_replicas_it_knew(actor, open_actor):
    (edit,) = await add(actor, "a")
    await make_ready(actor, edit)
    for name in ("one", "two"):
        await actor.poll(name, {}, 0, True)
    again = open_actor()
    await again.poll("one", {edit.edit_set: 1}, 0, True)
    assert not (await again.wait_active(edit.edit_set, 1, 0)).reached, "`two` may serve the old state"
    await again.poll("two", {edit.edit_set: 1}, 0, True)
    assert (await again.wait_active(edit.edit_set, 1, 0)).reached
    await again.leave("two")
    assert [state.name for state in await again.replicas()] == ["one"]
    assert again._store.read(replica_names) == ["one"]


async def test_a_deleted_set_is_gone_for_those_who_never_had_it(actor):
    (edit,) = await add(actor, "a", edit_set="temp")
    await make_ready(actor, edit)
    await actor.poll("had", {edit.edit_set: 1}, 0, True)
    gone = await actor.write(commands.DeleteEditSet("p", "d", "temp"))
    assert await actor.poll("new", {}, 0, True) == []
    assert not (await actor.wait_active(gone.id, gone.snapshot.version, 0)).reached
    (delta,) = await actor.poll("had", {edit.edit_set: 1}, 0, True)
    assert (delta.deleted, delta.added, delta.removed) == (True, (), ())
    assert await actor.poll("had", {}, 0, True) == []
    assert (await actor.wait_active(gone.id, gone.snapshot.version, 0)).reached


async def test_a_set_that_was_empty_when_it_was_deleted_is_let_go_too(actor):
    (edit,) = await add(actor, "a", edit_set="temp")
    await make_ready(actor, edit)
    retired = await actor.write(commands.RetireEdit("p", "r", edit.id))
    positions = {edit.edit_set: retired.set_version}
    assert await actor.poll("had", positions, 0, True) == []
    await actor.write(commands.DeleteEditSet("p", "d", "temp"))
    (delta,) = await actor.poll("had", positions, 0, True)
    assert delta.deleted


async def test_a_replica_from_the_future_is_refused(actor):
    (edit,) = await add(actor, "a")
    with pytest.raises(InvalidValue, match="ahead"):
        await actor.poll("r1", {edit.edit_set: 7}, 0, True)


async def test_wait_status_returns_when_all_are_settled_or_time_is_over(actor):
    edits = await add(actor, "a", "b")
    ids = tuple(edit.id for edit in edits)
    early = await actor.wait_status("p", ids, 0.05)
    assert {edit.status for edit in early} == {EditStatus.PENDING}
    waiting = asyncio.create_task(actor.wait_status("p", ids, 5))
    await asyncio.sleep(0.05)
    await make_ready(actor, edits[0])
    await actor.write(commands.RetireEdit("p", "r", edits[1].id))
    assert [edit.status for edit in await waiting] == [EditStatus.READY, EditStatus.RETIRED]
    with pytest.raises(EditNotFound):
        await actor.wait_status("q", ids, 0)


async def test_wait_edits_returns_when_every_replica_has_them_or_time_is_over(actor):
    edits = await add(actor, "a", "b") + await add(actor, "c", request_id="other", edit_set="other")
    ids = tuple(edit.id for edit in edits)
    early, progress = await actor.wait_edits("p", ids, 0.05)
    assert ({edit.status for edit in early}, progress) == ({EditStatus.PENDING}, {})
    await make_ready(actor, *edits)
    positions = {edit.edit_set: 1 for edit in edits}

    async def one_of_two():
        """Leases are short here: a replica that is not heard of again may be given up before it is counted."""
        await actor.poll("r1", {edits[0].edit_set: 1}, 0, True)
        _, progress = await actor.wait_edits("p", ids, 0.05)
        reached = {edit_set: each.reached for edit_set, each in progress.items()}
        return reached == {edits[0].edit_set: True, edits[2].edit_set: False}

    await eventually(one_of_two)
    waiting = asyncio.create_task(actor.wait_edits("p", ids, 5))
    await asyncio.sleep(0.05)
    await actor.poll("r1", positions, 0, True)
    done, progress = await waiting
    assert {edit.status for edit in done} == {EditStatus.READY}
    assert all(each.reached for each in progress.values())


async def test_writes_of_another_process_are_noticed(actor, open_actor):
    (edit,) = await add(actor, "a")
    waiting = asyncio.create_task(actor.poll("r1", {}, 10, True))
    await asyncio.sleep(0.05)
    other = open_actor()
    await make_ready(other, edit)
    (delta,) = await waiting
    assert delta.snapshot.num_edits == 1


async def test_a_slow_read_does_not_take_a_head_back(actor):
    edits = await add(actor, "a", "b")
    before = actor._store.read(heads)
    await make_ready(actor, *edits)
    actor.read, read = (lambda query, *args: asyncio.sleep(0, before)), actor.read
    await actor._refresh()
    actor.read = read
    (delta,) = await actor.poll("r1", {}, 0, True)
    assert await actor.poll("r1", {delta.snapshot.edit_set: delta.snapshot.version}, 0, True) == []


async def test_a_bug_in_a_write_is_told_to_its_caller_alone(actor):
    bad, good = await asyncio.gather(actor.write("not a command"), add(actor, "a"), return_exceptions=True)
    assert type(bad) is IncomesError
    assert "TypeError" in bad.message
    assert good, "a write in the same transaction, and the next one, work"
    assert await add(actor, "b", request_id="b")


async def test_a_read_cannot_write(actor):
    with pytest.raises(NotReady, match=r"read-?only"):
        await actor.read(lambda conn: conn.exec_driver_sql("DELETE FROM meta"))


async def test_a_wait_reads_an_edit_again_only_while_it_waits(actor):
    edits = await add(actor, *(f"text {i}" for i in range(40)))
    waiting = asyncio.create_task(actor.wait_status("p", tuple(e.id for e in edits), 10))
    read, numbers = actor.read, []

    async def counted(method, *args):
        numbers.append(len(args[1]))
        return await read(method, *args)

    actor.read = counted
    await asyncio.sleep(0.05)
    for start in range(0, 40, 10):
        await make_ready(actor, *edits[start : start + 10])
        await asyncio.sleep(0.05)
    found = await waiting
    assert [edit.id for edit in found] == [edit.id for edit in edits]
    assert sum(numbers) == 40 + 40


async def test_a_look_for_news_reads_no_deleted_sets(actor, open_actor):
    await add(actor, "a")
    for i in range(5):
        gone = await actor.write(commands.CreateEditSet("p", f"c{i}", f"gone{i}"))
        await actor.write(commands.DeleteEditSet("p", f"d{i}", gone.id))
    assert len(actor._store.read(news, frozenset())) == 1
    other = open_actor()
    assert (len(other._heads.live), len(other._heads.known)) == (1, 6)
    (last,) = other._heads.live
    await actor.write(commands.DeleteEditSet("p", "last", last))
    (delta,) = await other.poll("r", {last: 0}, 5, True)
    assert delta.deleted


def reading(conn, started, may_end):
    """A long read, as of a digest: it holds a connection with a state of the database."""
    assert conn.exec_driver_sql("SELECT count(*) FROM edits").scalar() == 1
    started.set()
    assert may_end.wait(60)
    return "long"


async def test_long_reads_delay_neither_keys_nor_polls_nor_admissions_nor_writes(actor):
    (edit,) = await add(actor, "a")
    await make_ready(actor, edit)
    started, may_end = [threading.Event() for _ in range(3)], threading.Event()
    long = [asyncio.create_task(actor.read(reading, event, may_end)) for event in started]
    for event in started[:2]:
        assert await asyncio.to_thread(event.wait, 60)
    async with asyncio.timeout(60):
        assert (await actor.read(tenancy, -1)).version == 0
        assert (await actor.read(get_edit, "p", edit.id)).id == edit.id
        assert (await actor.read(use_of_projects))["p"].edits == 1
        (delta,) = await actor.poll("one", {}, 5, True)
        assert delta.snapshot.num_edits == 1
        assert len(await add(actor, "b", request_id="more")) == 1
        assert len((await actor.wait_edits("p", (edit.id,), 0))[0]) == 1
    assert not started[2].is_set(), "long ones wait for each other"
    assert not [task for task in long if task.done()]
    may_end.set()
    with pytest.raises(AssertionError):  # of the third: there is one edit more when it begins
        await long[2]
    assert [await task for task in long[:2]] == ["long", "long"]


def test_each_query_of_a_lane_is_one_of_the_stores(actor):
    for query in reads._LANES:
        assert inspect.isfunction(query)
        assert next(iter(inspect.signature(query).parameters)) == "conn", query
        assert pickle.loads(pickle.dumps(query)) is query, "Ray sends it by its name"
