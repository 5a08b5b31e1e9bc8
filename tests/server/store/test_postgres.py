"""What only PostgreSQL brings: two writers at once, a server that restarts or is away, texts that it cannot hold."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event

import pytest
from incomes_server.edits import EditStatus, NewEdit
from incomes_server.store import actor as actors
from incomes_server.store import commands, core, outcomes
from incomes_server.store.actor import EditStoreActor
from incomes_server.store.check import problems
from incomes_server.store.core import EditStore
from incomes_server.store.counts import count
from incomes_server.store.edit_sets import get_edit_set
from incomes_server.store.edits import get_edit
from incomes_server.store.log import read_delta
from sqlalchemy.exc import OperationalError

from incomes_plugin.errors import InvalidValue, NotReady
from tests.postgres import serve_postgres
from tests.server.gists import outcome_of

NEW = (NewEdit("text", (1,)),)


@pytest.fixture
def url(postgres):
    with postgres.database() as url:
        yield url


@pytest.fixture(scope="module")
def own():
    """A server that these tests may end."""
    with serve_postgres() as cluster:
        yield cluster


@pytest.fixture
def own_url(own):
    with own.database() as url:
        yield url


def test_two_writers_share_one_dense_log_and_the_request_ids(url):
    """As when two clusters overlap during an upgrade."""
    stores = [EditStore(url) for _ in range(2)]
    edit_set = stores[0].write(commands.EnsureEditSet("p", "default"))

    def write(number):
        store = stores[number]
        for i in range(60):
            (edit,) = store.write(commands.AddEdits("p", f"{number}-{i}", "default", NEW))
            store.write(commands.RecordOutcomes((outcome_of(edit.id, 1),)))
            store.write(commands.AddEdits("p", f"same-{i}", "default", NEW))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, range(2)))
    assert stores[0].read(count).edits == {"ready": 120, "pending": 60}
    assert stores[1].read(get_edit_set, "p", "default").snapshot.version == 120
    assert stores[0].read(read_delta, edit_set.id, 0).snapshot.num_edits == 120
    assert stores[0].read(problems) == []
    for store in stores:
        store.close()


def test_writers_that_lock_in_opposite_orders_both_get_through(url):
    stores = [EditStore(url) for _ in range(2)]
    for name in "ab":
        stores[0].write(commands.EnsureEditSet("p", name))
    together = Barrier(2)

    def write(number):
        for i in range(10):
            names = "ab" if number else "ba"
            together.wait(60)
            batch = [commands.AddEdits("p", f"{number}-{i}-{name}", name, NEW) for name in names]
            assert [type(result) for result in stores[number].commit(batch).results] == [list, list]

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, range(2)))
    assert stores[0].read(count).edits == {"pending": 40}
    for store in stores:
        store.close()


def test_an_edit_that_another_writer_retires_meanwhile_does_not_join(url, monkeypatch):
    """Two clusters during an upgrade: one records a gist, the other takes the edit out of service."""
    one, two = EditStore(url), EditStore(url)
    one.write(commands.EnsureEditSet("p", "default"))
    (edit,) = one.write(commands.AddEdits("p", "add", "default", NEW))
    check, began = outcomes._check, Event()

    def check_slowly(*args):
        began.set()
        time.sleep(0.5)  # it has read that the edit waits
        return check(*args)

    monkeypatch.setattr(outcomes, "_check", check_slowly)
    with ThreadPoolExecutor(1) as pool:
        recorded = pool.submit(two.write, commands.RecordOutcomes((outcome_of(edit.id, 1),)))
        assert began.wait(60)
        one.write(commands.RetireEdit("p", "retire", edit.id))
        recorded.result()
    assert one.read(get_edit, "p", edit.id).status is EditStatus.RETIRED
    assert one.read(get_edit_set, "p", "default").snapshot.num_edits == 0
    assert one.read(problems) == []
    for store in (one, two):
        store.close()


def test_a_text_that_the_database_cannot_hold_stops_no_other(url):
    store = EditStore(url)
    store.write(commands.EnsureEditSet("p", "default"))
    bad = commands.AddEdits("p", "1", "default", (NewEdit("a\0b", (1,)),))
    results = store.commit([bad, commands.AddEdits("p", "2", "default", NEW)]).results
    assert [type(result) for result in results] == [InvalidValue, list]
    assert store.read(count).edits == {"pending": 1}
    store.close()


def test_no_table_is_read_by_a_sequence_of_another_state(url):
    """A read sees one state, whatever is written meanwhile, and its connection cannot write."""
    store = EditStore(url)
    edit_set = store.write(commands.EnsureEditSet("p", "default"))

    def twice(conn):
        before = get_edit_set(conn, "p", "default").snapshot
        (edit,) = store.write(commands.AddEdits("p", "1", "default", NEW))
        store.write(commands.RecordOutcomes((outcome_of(edit.id, 1),)))
        return before, get_edit_set(conn, "p", "default").snapshot

    before, after = store.read(twice)
    assert before == after
    assert store.read(get_edit_set, "p", edit_set.id).snapshot.version == 1
    store.close()


def test_writes_wait_for_a_server_that_restarts(own, own_url, monkeypatch):
    monkeypatch.setattr(core, "RETRY_S", 120.0)  # its recovery takes long on a busy machine
    store = EditStore(own_url)
    store.write(commands.EnsureEditSet("p", "default"))
    acknowledged = []

    def write():
        for i in range(90):
            (edit,) = store.write(commands.AddEdits("p", str(i), "default", NEW))
            store.write(commands.RecordOutcomes((outcome_of(edit.id, 1),)))
            acknowledged.append(edit.id)

    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(write)
        for at, end in ((20, own.kill), (50, own.stop)):
            while len(acknowledged) < at and not writer.done():
                time.sleep(0.01)
            end()
            time.sleep(0.5)
            own.start()
        writer.result()
    assert len(set(acknowledged)) == 90
    assert store.read(count).edits == {"ready": 90}
    assert store.read(get_edit_set, "p", "default").snapshot.version == 90
    assert store.read(problems) == []
    store.close()


async def test_while_the_server_is_away_the_answer_is_not_ready_and_a_retry_loses_nothing(own, own_url, monkeypatch):
    monkeypatch.setattr(core, "RETRY_S", 0.5)
    actor = EditStoreActor(own_url)
    await actor.write(commands.EnsureEditSet("p", "default"))
    own.kill()
    add = commands.AddEdits("p", "add", "default", NEW)
    with pytest.raises(NotReady, match="database failed"):
        await actor.write(add)
    with pytest.raises(NotReady, match="database failed"):
        await actor.read(count)
    assert "database failed" in await actor.health()
    own.start()
    (edit,) = await actor.write(add)
    assert await actor.write(add) == [edit]
    assert (await actor.read(get_edit, "p", edit.id)).id == edit.id
    assert await actor.health() is None
    actor._store.close()


async def test_an_actor_that_starts_before_its_server_waits_for_it(own, own_url, monkeypatch):
    own.kill()
    starting = asyncio.create_task(asyncio.to_thread(EditStoreActor, own_url))
    try:
        await asyncio.sleep(1.5)
        assert not starting.done()
    finally:
        own.start()
    actor = await starting
    assert await actor.health() is None
    actor._store.close()
    own.kill()
    monkeypatch.setattr(actors, "OPEN_S", 0.0)
    with pytest.raises(NotReady, match="database failed") as caught:
        EditStoreActor(own_url)
    assert isinstance(caught.value.__cause__, OperationalError)
    own.start()
