"""What a look at the running parts finds: stopped, dead, silent, failing."""

import asyncio
import signal
import subprocess

import psutil
import pytest
from incomes_server.api.http.readiness import Readiness
from incomes_server.boot.watch import Part, watch_answers, watch_processes

from incomes_plugin.errors import EngineLost, NotReady
from tests.eventually import eventually


@pytest.fixture
def part():
    with subprocess.Popen(["sleep", "60"]) as process:
        yield Part("engine", psutil.Process(process.pid))
        process.kill()


async def test_a_stopped_process_is_noted_until_it_goes_on(part, monkeypatch):
    monkeypatch.setattr("incomes_server.boot.watch.EVERY_S", 0.05)
    readiness = Readiness()
    watching = asyncio.create_task(watch_processes(readiness, [part]))
    part.process.send_signal(signal.SIGSTOP)
    await eventually(lambda: "engine" in (readiness.reasons()["processes"] or ""))
    part.process.send_signal(signal.SIGCONT)
    await eventually(lambda: readiness.reasons()["processes"] is None)
    watching.cancel()


@pytest.mark.parametrize("waited_for", [False, True])
async def test_a_dead_process_ends_the_watch(part, waited_for):
    part.process.kill()
    if waited_for:
        part.process.wait()
    else:
        await asyncio.sleep(0.2)
    with pytest.raises(EngineLost, match=f"engine .process {part.process.pid}. died"):
        await watch_processes(Readiness(), [part])


async def test_answers(monkeypatch):
    monkeypatch.setattr("incomes_server.boot.watch.EVERY_S", 0.02)
    answers = {"wrong": lambda: "the disk is full", "good": lambda: None, "silent": lambda: asyncio.sleep(9)}
    now = {"state": "good"}

    async def ask():
        if now["state"] == "fails":
            raise NotReady("the actor is gone")
        answer = answers[now["state"]]()
        return await answer if asyncio.iscoroutine(answer) else answer

    readiness = Readiness()
    watching = asyncio.create_task(watch_answers(readiness, "store_answers", ask, within_s=0.05))
    for state, expected in (
        ("wrong", "the disk is full"),
        ("silent", "no answer within 0.05 s"),
        ("fails", "the actor is gone"),
        ("good", None),
    ):
        now["state"] = state
        await eventually(lambda: readiness.reasons()["store_answers"] == expected)  # noqa: B023 - awaited at once
    watching.cancel()


def test_a_refused_change_closes_its_edit_set_alone():
    readiness = Readiness()
    for stage, reason in readiness.reasons().items():
        if reason is not None:
            readiness.passed(stage)
    readiness.refused("eset_a", "PoolFull: no room")
    assert "1 edit sets" in readiness.reasons()["changes"]
    readiness.require()
    readiness.require_set("eset_b")
    with pytest.raises(NotReady, match="no room"):
        readiness.require_set("eset_a")
    readiness.refused("eset_a", None)
    assert readiness.ready


async def test_a_stopped_actor_is_noted_before_it_is_late(monkeypatch):
    monkeypatch.setattr("incomes_server.boot.watch.EVERY_S", 0.05)
    readiness = Readiness()
    with subprocess.Popen(["bash", "-c", "exec -a ray::EditStoreActor sleep 60"]) as process:
        await asyncio.sleep(0.2)
        process.send_signal(signal.SIGSTOP)
        watching = asyncio.create_task(
            watch_answers(readiness, "store_answers", lambda: asyncio.sleep(60), within_s=60)
        )
        stopped = f"store (process {process.pid}) is stopped"
        await eventually(lambda: stopped in (readiness.reasons()["store_answers"] or ""))
        watching.cancel()
        process.kill()
