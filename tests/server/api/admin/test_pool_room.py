"""Admission arithmetic: what is promised counts at once, and no project takes what others may have."""

import asyncio

import pytest
import torch
from incomes_server.api.admin.pool_room import PoolRoom
from incomes_server.auth.quotas import Quotas
from incomes_server.store.counts import ProjectUse

from incomes_plugin.errors import PoolFull, QuotaExceeded
from incomes_plugin.gist.spelling import Spelling
from incomes_plugin.gist.types import SPELLED_PER_TOKEN
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.pool import gists
from incomes_plugin.pool.gists import GistPool, room_for
from incomes_plugin.pool.snapshot import SnapshotDelta, SnapshotRef
from tests.tiny_model import write_tiny_model


@pytest.fixture(autouse=True)
def ten_bytes_a_token(request, monkeypatch):
    if "adapter" not in request.fixturenames:
        monkeypatch.setattr(
            "incomes_server.api.admin.pool_room.room_for", lambda adapter, dtype, edits, tokens: 10 * tokens
        )


QUOTAS = Quotas(edits=100, gist_bytes=6000, running_requests=2, usable_bytes=7000)


class Source:
    """Engine and store as far as the arithmetic sees them."""

    adapter, dtype = None, torch.bfloat16

    def __init__(self, **use):
        self.use, self.looks = use, 0

    async def use_of_projects(self):
        self.looks += 1
        await asyncio.sleep(0.01)
        return dict(self.use)

    async def use_of_labels(self):
        return {}


def room_of(**use):
    source = Source(**use)
    return PoolRoom(source, source, QUOTAS), source


async def take(room, project, tokens, **how):
    async with room.reserve(project, tokens, **how):
        pass


async def test_a_burst_is_counted_between_two_looks():
    room, source = room_of(a=ProjectUse(4, 400))
    for _ in range(2):
        await take(room, "a", [50, 50])
    assert source.looks == 1
    source.use = {"a": ProjectUse(8, 600)}
    with pytest.raises(
        QuotaExceeded, match=r"6000 of at most 6000 bytes of gists, 10 more .*max_gist_bytes_per_project"
    ):
        await take(room, "a", [1])
    assert source.looks == 2


async def test_reservations_at_the_same_time_all_count():
    room, _ = room_of(a=ProjectUse(5, 500))

    decided = asyncio.Event()

    async def write():
        async with room.reserve("a", [30]):
            await decided.wait()  # what the store does not know yet

    writes = [asyncio.create_task(write()) for _ in range(10)]
    while sum(task.done() for task in writes) < 7:
        await asyncio.sleep(0)
    decided.set()
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert sum(result is None for result in results) == 3


async def test_what_is_stored_while_the_store_counts_is_not_lost():
    room, _ = room_of(a=ProjectUse(5, 500))
    async with room.reserve("a", [99]):
        looking = asyncio.create_task(room._look())
        await asyncio.sleep(0)  # the store counts, without the 99
    await looking
    assert room._used_by("a").tokens == 599


async def test_where_a_project_may_fill_the_pool_the_pool_is_full():
    source = Source(a=ProjectUse(7, 700))
    room = PoolRoom(source, source, Quotas(edits=100, gist_bytes=7000, running_requests=2, usable_bytes=7000))
    with pytest.raises(PoolFull, match="pool_bytes"):
        await take(room, "a", [1])


async def test_a_write_that_fails_gives_its_room_back():
    room, _ = room_of(a=ProjectUse(5, 500))
    for _ in range(3):
        with pytest.raises(KeyError):
            async with room.reserve("a", [100]):
                raise KeyError


async def test_the_pool_has_an_end_for_all_together():
    room, _ = room_of(a=ProjectUse(5, 500), b=ProjectUse(2, 199))
    async with room.reserve("b", [1]):
        with pytest.raises(PoolFull, match=r"room for 0 more bytes of gists, 10 are needed; .*pool_bytes"):
            await take(room, "b", [1])


async def test_number_of_edits():
    room, _ = room_of(a=ProjectUse(99, 99))
    async with room.reserve("a", [1]):
        with pytest.raises(QuotaExceeded, match="100 of at most 100 edits"):
            await take(room, "a", [1])


async def test_a_replacement_that_is_no_longer_always_has_room():
    room, _ = room_of(a=ProjectUse(100, 700))
    await take(room, "a", [50], replaces=50)
    with pytest.raises(QuotaExceeded):
        await take(room, "a", [51], replaces=50)


async def test_what_was_retired_is_seen_at_once():
    room, source = room_of(a=ProjectUse(6, 600))
    with pytest.raises(QuotaExceeded):
        await take(room, "a", [1])
    source.use = {"a": ProjectUse(1, 100)}
    await take(room, "a", [1])


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    return EditAdapter.load(write_tiny_model(tmp_path_factory.mktemp("tiny")) / "adapter")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_room_promised_is_what_the_pool_takes(adapter, dtype):
    shape, lengths = adapter.shape, (1, 15, 16, 17, 64)
    heads = (len(shape.layers), shape.num_kv_heads)
    made = []
    for i, tokens in enumerate(lengths):
        numbers = torch.randn(tokens, *heads, shape.head_dim)
        spelling = Spelling.of([(7, 0, -1)] * round(SPELLED_PER_TOKEN * tokens))
        made.append(adapter.gist(f"edit_{i}", 1, torch.randn(tokens, shape.feature_dim), numbers, numbers, spelling))
    pool = GistPool(adapter, capacity_bytes=1 << 20, device=torch.device("cpu"), dtype=dtype)
    pool.commit(SnapshotDelta(None, SnapshotRef("set", 1, "0", len(made)), tuple(made)))
    room = room_for(adapter, dtype, len(made), sum(lengths))
    row = gists.ROW_TOKENS * adapter.router.key.out_features * dtype.itemsize
    rows = sum(-(-tokens // gists.ROW_TOKENS) for tokens in lengths)
    moving = (gists.MOVING - 1) * rows * row  # the arena that a growing one is copied to
    spare = gists.MOVING * row * len(made)
    assert room - spare <= pool.usage().used_bytes + moving <= room


async def test_a_copy_waits_for_the_room_of_another_one_and_for_nothing_else():
    room, _ = room_of()
    may_go, has_room, order = asyncio.Event(), asyncio.Event(), []

    async def first():
        async with room.lend(ProjectUse(1, 500), wait=True):
            has_room.set()
            await may_go.wait()
            with pytest.raises(PoolFull):
                async with room.lend(ProjectUse(1, 500), wait=False):
                    pass
            order.append("first")

    async def second():
        async with room.lend(ProjectUse(1, 600), wait=True):
            order.append("second")

    one = asyncio.create_task(first())
    await has_room.wait()
    two = asyncio.create_task(second())
    async with room.lend(ProjectUse(1, 100), wait=True):
        order.append("small")
    may_go.set()
    await asyncio.wait_for(asyncio.gather(one, two), 60)
    assert order == ["small", "first", "second"]
    with pytest.raises(PoolFull, match="7010 are needed"):
        async with room.lend(ProjectUse(1, 701), wait=True):
            pass
