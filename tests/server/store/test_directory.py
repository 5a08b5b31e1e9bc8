"""Names of edit sets: however many ask at once, the store is asked once."""

import asyncio
from types import SimpleNamespace

import pytest
from incomes_server.store.directory import EditSetDirectory

from incomes_plugin.errors import EditSetNotFound


class Store:
    def __init__(self):
        self.asked = 0

    async def get_edit_set(self, project, name):
        self.asked += 1
        await asyncio.sleep(0.02)
        if name == "missing":
            raise EditSetNotFound(f"no {name}")
        return SimpleNamespace(id=f"{project}-{name}")


async def test_a_crowd_asks_once():
    store = Store()
    directory = EditSetDirectory(store, "default")
    found = await asyncio.gather(*(directory.id_of(project, None) for project in ["a"] * 50 + ["b"] * 50))
    assert (set(found), store.asked) == ({"a-default", "b-default"}, 2)
    failed = await asyncio.gather(*(directory.id_of("a", "missing") for _ in range(9)), return_exceptions=True)
    assert ({type(error) for error in failed}, store.asked) == ({EditSetNotFound}, 3)
    with pytest.raises(EditSetNotFound):
        await directory.id_of("a", "missing")
    assert store.asked == 4


async def test_one_who_leaves_takes_nothing_from_the_others():
    directory = EditSetDirectory(Store(), "default")
    first, second = (asyncio.create_task(directory.id_of("a", None)) for _ in range(2))
    await asyncio.sleep(0.01)
    first.cancel()
    assert await second == "a-default"
