"""Edits that wait get the ids of the model that will compress them; over several pages, and only where they differ."""

from incomes_server.boot import retokenize as module
from incomes_server.boot.retokenize import retokenize
from incomes_server.edits import NewEdit
from incomes_server.store import commands
from incomes_server.store.outcomes import pending_jobs, waiting_texts


class Direct:
    """`StoreClient`'s two calls, on the store itself."""

    def __init__(self, store):
        self.store = store
        self.writes = 0

    async def waiting_texts(self, after, limit):
        return self.store.read(waiting_texts, after, limit)

    async def retokenize(self, edits):
        self.writes += 1
        self.store.write(commands.Retokenize(tuple(edits)))


async def test_ids_that_differ_are_replaced(store, monkeypatch):
    monkeypatch.setattr(module, "PAGE", 2)
    store.write(commands.EnsureEditSet("p", "default"))
    new = tuple(NewEdit(text, (len(text),)) for text in ("a", "bb", "ccc", "dddd", "eeeee"))
    store.write(commands.AddEdits("p", "r", "default", new))
    direct = Direct(store)
    assert await retokenize(direct, lambda text: (len(text),) if len(text) < 4 else (len(text), 0)) == 2
    assert [job.token_ids for job in store.read(pending_jobs, 9)] == [(1,), (2,), (3,), (4, 0), (5, 0)]
    assert direct.writes == 2  # the first page had nothing to write
    assert await retokenize(direct, lambda text: (len(text),) if len(text) < 4 else (len(text), 0)) == 0
