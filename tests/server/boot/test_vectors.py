"""The loop that makes vectors ends nothing else, whatever goes wrong in it."""

import asyncio
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

from incomes_server.api.admin.context import AdminContext
from incomes_server.boot import vectors
from incomes_server.boot.vectors import make_vectors
from incomes_server.settings import Settings

from incomes_plugin.lab.verbatim.frame import VectorOrigin
from tests.eventually import eventually


class Broken:
    """A store that has a bug."""

    def __init__(self):
        self.asked = 0

    async def verbatims_wait(self, name):
        self.asked += 1
        raise KeyError("a bug")


class Frames:
    """What the vectors are made for."""

    async def frame(self):
        return SimpleNamespace(origin=VectorOrigin("m", "t", "f"), dtype="torch.float32", folder=Path("base"))


async def test_an_error_in_it_ends_neither_the_loop_nor_serving(monkeypatch):
    monkeypatch.setattr(vectors, "AGAIN_S", 0.01)
    store = Broken()
    context: AdminContext = SimpleNamespace(store=store, recaller=Frames(), settings=Settings())
    loop = asyncio.create_task(make_vectors(context))
    await eventually(lambda: store.asked > 2)
    assert not loop.done()
    loop.cancel()
    with suppress(asyncio.CancelledError):
        await loop
