"""Admission arithmetic: what is promised between two looks counts, and a part stays free for retirements."""

from types import SimpleNamespace

import pytest
from incomes_server.pool_room import PoolRoom

from incomes_plugin.errors import PoolFull


class Source:
    """Engine and queue as far as the arithmetic sees them."""

    adapter = SimpleNamespace(shape=SimpleNamespace(max_gists=10))

    def __init__(self, free, waiting=0):
        self.free, self.waiting, self.looks = free, waiting, 0

    async def status(self):
        self.looks += 1
        return SimpleNamespace(capacity_gists=800, free_gists=self.free)

    async def stats(self):
        return SimpleNamespace(interactive=self.waiting, bulk=0, leased=0)


async def test_a_burst_is_counted_between_two_looks():
    source = Source(free=400)
    room = PoolRoom(source, source)
    for _ in range(3):
        await room.take([100])
    assert source.looks == 1
    source.free = 100
    with pytest.raises(PoolFull, match="room for 0 more"):
        await room.take([100])
    assert source.looks == 2


async def test_waiting_edits_have_their_room():
    source = Source(free=400, waiting=25)
    room = PoolRoom(source, source)
    await room.take([10] * 5)
    source.waiting += 5
    with pytest.raises(PoolFull):
        await room.take([1])


async def test_waiting_edits_count_with_the_sizes_they_were_taken_with():
    source = Source(free=401)
    room = PoolRoom(source, source)
    await room.take([2] * 100)
    await room.take([4] * 25)
    source.free, source.waiting = 402, 125
    await room.take([2])  # 402 free, 100 in reserve, 300 promised to those that wait
    source.waiting = 126
    with pytest.raises(PoolFull):
        await room.take([1])
