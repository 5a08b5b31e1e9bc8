"""The `edits` object: an entry for each choice, their mean, and no trace left behind."""

import asyncio

import pytest
from incomes_server.api.chat.attribute import Attributor
from incomes_server.api.chat.resolve import Resolved

from incomes_plugin.pool.snapshot import SnapshotRef
from incomes_plugin.selection.attribution import Attribution


class Engine:
    def __init__(self):
        self.dropped = []

    async def attributions(self, trace):
        heavy, light = Attribution(0.2, [("e1", 1, 0.6), ("e2", 3, 0.2)]), Attribution(0.9, [("e1", 1, 0.1)])
        return {(0, 0): heavy, (0, 1): light, (1, 1): light}

    async def drop_trace(self, trace):
        self.dropped.append(trace)


def attributor(num_edits=2, answers=2):
    engine = Engine()
    return Attributor(engine, Resolved(SnapshotRef("eset", 1, "0" * 64, num_edits), "DEFAULT", "t"), answers), engine


async def test_choices_of_several_prompts_with_several_answers():
    attribute, _ = attributor()
    found = await attribute([0, 1, 2, 3])
    assert [choice["none_weight"] for choice in found["choices"]] == [0.2, 0.9, 1.0, 0.9]
    assert found["choices"][2]["applied"] == []
    assert found["applied"][0] == {"edit": "e1", "version": 1, "weight": 0.2}
    assert found["none_weight"] == pytest.approx(0.75)


async def test_without_edits_nothing_is_asked():
    attribute, engine = attributor(num_edits=0, answers=1)
    async with attribute:
        found = await attribute([0])
    assert (found["applied"], found["none_weight"]) == ([], 1.0)
    await asyncio.sleep(0)
    assert engine.dropped == []


@pytest.mark.parametrize("fetched", [False, True])
async def test_what_was_not_fetched_is_let_go(fetched):
    attribute, engine = attributor()
    async with attribute:
        if fetched:
            await attribute([0])
    await asyncio.sleep(0.01)
    assert engine.dropped == ([] if fetched else ["t"])
