"""Admission arithmetic: what is promised between two looks counts, and a part stays free for changes."""

from types import SimpleNamespace

import pytest
import torch
from incomes_server.pool_room import PoolRoom

from incomes_plugin.errors import PoolFull
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.pool import gists
from incomes_plugin.pool.gists import GistPool, room_for
from tests.tiny_model import write_tiny_model


@pytest.fixture(autouse=True)
def ten_bytes_a_token(request, monkeypatch):
    if "adapter" not in request.fixturenames:
        monkeypatch.setattr("incomes_server.pool_room.room_for", lambda adapter, dtype, edits, tokens: 10 * tokens)


class Source:
    """Engine and store as far as the arithmetic sees them."""

    adapter, dtype = None, torch.bfloat16

    def __init__(self, used, waiting=(0, 0)):
        self.used, self.waiting, self.looks = used, waiting, 0

    async def status(self):
        self.looks += 1
        return SimpleNamespace(capacity_bytes=8000, used_bytes=self.used)

    async def waiting_size(self):
        return self.waiting


async def test_a_burst_is_counted_between_two_looks():
    source = Source(used=4000)  # 1,000 stay in reserve
    room = PoolRoom(source, source)
    for _ in range(3):
        await room.take([50, 50])
    assert source.looks == 1
    source.used = 7000
    with pytest.raises(PoolFull, match=r"room for 0 more bytes of gists, 10 are needed; .*pool_bytes"):
        await room.take([1])
    assert source.looks == 2


async def test_waiting_edits_have_their_room():
    source = Source(used=4000, waiting=(3, 299))
    room = PoolRoom(source, source)
    await room.take([1])
    source.waiting = (4, 300)
    with pytest.raises(PoolFull):
        await room.take([1])


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    return EditAdapter.load(write_tiny_model(tmp_path_factory.mktemp("tiny")) / "adapter")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_room_promised_is_what_the_pool_takes(adapter, dtype):
    shape, lengths = adapter.shape, (1, 15, 16, 17, 64)
    heads = (len(shape.layers), shape.num_kv_heads)
    made = []
    for i, tokens in enumerate(lengths):
        rotated = torch.randn(*heads, tokens, shape.head_dim)
        made.append(adapter.gist(f"edit_{i}", 1, torch.randn(tokens, shape.feature_dim), rotated, rotated))
    pool = GistPool(adapter, capacity_bytes=1 << 20, device=torch.device("cpu"), dtype=dtype)
    pool.commit("set", None, "snap", len(made), made, ())
    room = room_for(adapter, dtype, len(made), sum(lengths))
    spare = gists.ROW_TOKENS * adapter.router.key.out_features * dtype.itemsize * len(made)
    assert room - spare <= pool.usage().used_bytes <= room
