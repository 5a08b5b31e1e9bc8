"""The store as a real Ray actor: typed errors, kill -9 under load, loopback only."""

import asyncio
import base64
import pickle
import time
from dataclasses import replace

import psutil
import pytest
from incomes_server.auth.master_key import MasterKey, MasterSource
from incomes_server.boot.ray_local import listening_beyond_loopback
from incomes_server.edits import EditStatus, NewEdit
from incomes_server.store.check import problems
from incomes_server.store.client import StoreClient
from incomes_server.store.edits import get_edit, list_edits
from incomes_server.store.log import read_delta

from incomes_plugin.errors import EditNotFound, IdempotencyKeyReuse, NotReady
from tests.server.conftest import stack_on
from tests.server.gists import outcome_of

pytestmark = pytest.mark.ray


async def add(store, project, request_id, *texts):
    return await store.add_edits(project, "default", [NewEdit(text, (1, 2)) for text in texts], request_id=request_id)


async def test_errors_arrive_as_they_were_raised(stack, project):
    store = stack.store
    await store.ensure_edit_set(project, "default")
    with pytest.raises(EditNotFound) as missing:
        await store.get_edit(project, "edit_nope")
    assert type(missing.value) is EditNotFound
    assert missing.value.code == "edit_not_found"
    await add(store, project, "r", "a")
    with pytest.raises(IdempotencyKeyReuse) as reuse:
        await add(store, project, "r", "b")
    assert type(reuse.value) is IdempotencyKeyReuse
    with pytest.raises(NotReady, match="no-such-namespace"):
        await StoreClient.connect("no-such-namespace")


async def test_every_socket_of_ray_is_on_loopback(stack):
    assert [p for p in psutil.Process().children(recursive=True) if "raylet" in p.name()]
    assert listening_beyond_loopback() == []


async def test_kill_9_during_a_thousand_writes_loses_none(stack, project, figure):
    """Adds, outcomes and a long poll are under way while the actor's process dies, twice."""
    store = stack.store
    edit_set = await store.ensure_edit_set(project, "default")
    written = 0

    async def write(number):
        nonlocal written
        (edit,) = await add(store, project, f"request-{number}", f"text {number}")
        await store.record_outcomes([outcome_of(edit.id, 1)])
        written += 1
        return edit

    async def kill(at):
        while written < at:
            await asyncio.sleep(0.01)
        return await stack.kill(store)

    poll = asyncio.create_task(store.poll("r1", {}, timeout_s=60))
    killers = [asyncio.create_task(kill(at)) for at in (150, 600)]
    start_s = time.monotonic()
    edits = await asyncio.gather(*map(write, range(1000)))
    wall_s = time.monotonic() - start_s
    pids = await asyncio.gather(*killers)
    assert len(set(pids)) == 2
    assert (await poll)[0].snapshot.edit_set == edit_set.id, "a poll in flight survives too"

    after = await store.get_edit_set(project, "default")
    core = stack.core()
    texts = [core.read(get_edit, project, edit.id).text for edit in edits]
    assert texts == [f"text {number}" for number in range(1000)]
    stored, more = core.read(list_edits, project, edit_set="default", status=None, limit=1000, after=None, order="asc")
    assert {edit.id for edit in stored} == {edit.id for edit in edits}, "no write twice"
    assert ({edit.status for edit in stored}, more) == ({EditStatus.READY}, False)
    assert core.read(problems) == [], "versions are dense and follow from the log"
    assert after.snapshot.num_edits == 1000
    assert {edit.status for edit in edits} == {EditStatus.PENDING}
    assert core.read(read_delta, edit_set.id, after.snapshot.version - 1).snapshot == after.snapshot
    core.close()
    figure(f"2,000 durable writes with two kills: {wall_s:.1f} s, {2000 / wall_s:.0f}/s")


async def test_throughput(stack, project, figure):
    """Not a limit, a number to read."""
    store = stack.store
    await store.ensure_edit_set(project, "default")
    start_s = time.monotonic()
    await asyncio.gather(*(add(store, project, f"one-{i}", "text") for i in range(300)))
    single_s = time.monotonic() - start_s
    start_s = time.monotonic()
    edits = await add(store, project, "many", *(f"text {i}" for i in range(1000)))
    await store.record_outcomes([outcome_of(edit.id, 1, num_tokens=455) for edit in edits])
    many_s = time.monotonic() - start_s
    assert (await store.get_edit_set(project, "default")).snapshot.num_edits == 1000
    figure(f"single adds {300 / single_s:.0f}/s (300 callers), batch of 1,000 with 8 KiB gists {1000 / many_s:.0f}/s")


async def test_the_stores_process_reads_its_master_key_itself_again_after_a_kill(local_ray, tmp_path, project):
    """Ray has the name of the file, in what it starts the actor with, and not the key."""
    key, path = MasterKey(bytes(range(32))), tmp_path / "master.key"
    path.write_text(base64.b64encode(key.key).decode())
    settings = replace(
        local_ray, database_url=f"sqlite:///{tmp_path}/edits.db", namespace=project,
        masters=(key,), master_source=MasterSource(path),
    )  # fmt: skip
    assert key.key not in pickle.dumps(settings.masters_of_the_actor)
    assert replace(settings, address="ray://elsewhere").masters_of_the_actor == (key,)
    for stack in stack_on(settings):
        await stack.store.ensure_edit_set(project, "default")
        (edit,) = await add(stack.store, project, "r", "sealed")
        await stack.kill(stack.store)
        assert (await stack.store.get_edit(project, edit.id)).text == "sealed"
        assert (await stack.store.data_key(project)).behind == 0
