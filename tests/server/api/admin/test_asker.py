"""Trials take turns by project, and hold no question of another's trial up. The engine alone is made up here."""

import asyncio
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from fastapi import FastAPI, Request
from incomes_server.api.admin.asker import AT_ONCE, OF_ONE_TRIAL, StateAsker

from incomes_plugin.errors import EditsDisabled
from incomes_plugin.pool.snapshot import SnapshotRef

STATE = SnapshotRef("eset_a", 1, "0" * 64, 0)


class Engine:
    """Answers a question when it may; knows one switch."""

    def __init__(self):
        self.asked, self.may_answer, self.switch, self.server_on = [], asyncio.Event(), None, True
        self.app = FastAPI()
        self.app.post("/v1/chat/completions")(self.answer)

    async def answer(self, request: Request):
        question = (await request.json())["messages"][0]["content"]
        self.asked.append(question)
        if question.startswith("slow"):
            await self.may_answer.wait()
        return {"choices": [{"message": {"content": f"to {question}"}}]}

    def off(self, edit_set):
        return self.switch

    def hold(self, snapshot):
        return nullcontext()

    async def is_server_on(self):
        return self.server_on


@pytest.fixture
def engine():
    return Engine()


@pytest.fixture
def asker(engine):
    return StateAsker(engine.app, engine, engine, SimpleNamespace(), "incomes")


async def until(condition):
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_long_run_of_one_project_holds_no_other_up_and_the_next_of_its_own_waits(asker, engine):
    order = []

    async def trial(project, questions):
        async with asker.turn(project):
            order.append((project, (await asker.ask(questions, STATE, 8))[-1].text))

    long = asyncio.create_task(trial("acme", [f"slow {i}" for i in range(50)]))
    await until(lambda: len(engine.asked) == OF_ONE_TRIAL)
    own = asyncio.create_task(trial("acme", ["own"]))
    await asyncio.wait_for(trial("zen", ["quick"]), 60)
    assert order == [("zen", "to quick")]
    assert "own" not in engine.asked
    assert OF_ONE_TRIAL < AT_ONCE
    engine.may_answer.set()
    await asyncio.gather(long, own)
    assert order[1:] == [("acme", "to slow 49"), ("acme", "to own")]


async def test_a_switch_that_moves_meanwhile_ends_the_trial(asker, engine):
    asking = asyncio.create_task(asker.ask([f"slow {i}" for i in range(50)], STATE, 8))
    await until(lambda: len(engine.asked) == OF_ONE_TRIAL)
    engine.switch = "server"
    engine.may_answer.set()
    with pytest.raises(EditsDisabled, match="this server"):
        await asking
    assert len(engine.asked) == OF_ONE_TRIAL, "nothing more is asked"


async def test_no_turn_begins_while_the_server_is_switched_off(asker, engine):
    engine.server_on = False
    with pytest.raises(EditsDisabled):
        async with asker.turn("acme"):
            pass
