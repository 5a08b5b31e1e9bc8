"""The pool's promises one by one: refusals, room, all or nothing, compaction, what stays on the device."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from incomes_plugin.errors import GistFormatError, PoolFull, SelectionFailed, SnapshotNotFound
from incomes_plugin.gist.types import Gist, Packed
from incomes_plugin.pool import gists as gists_module
from incomes_plugin.pool.gists import GistPool, room_for
from tests.incomes_plugin.pool.small import adapter, check_table, content_of, decoded, gist, pool_of


def gists(numbers: range | list[int], num_tokens: int = 16) -> list[Gist]:
    return [gist(f"e{i}", num_tokens) for i in numbers]


def keys(numbers: range | list[int]) -> list[tuple[str, int]]:
    return [(f"e{i}", 1) for i in numbers]


def test_the_router_sees_the_parent_and_its_own_edits() -> None:
    pool = pool_of()
    first = pool.commit("s", None, "a", 3, gists(range(3)), [])
    second = pool.commit("s", "a", "b", 3, gists([3]), keys([1]))
    assert set(first.table.edits) == set(keys(range(3)))
    assert set(second.table.edits) == set(keys([0, 2, 3]))
    assert first.table.arena is second.table.arena


def test_route_keys_are_bfloat16_only_if_the_engine_computes_in_it() -> None:
    for dtype, expected in ((torch.bfloat16, torch.bfloat16), (torch.float16, torch.float32)):
        pool = pool_of(dtype=dtype)
        snapshot = pool.commit("s", None, "a", 2, gists(range(2)), [])
        check_table(snapshot.table, content_of(snapshot))
        assert snapshot.table.keys.keys.dtype == expected
        assert pool.picked(snapshot, 0).keys.dtype == dtype
        assert snapshot.table.features_of(0).dtype == torch.float32


@pytest.mark.parametrize(
    ("base", "num_edits", "added", "removed", "ages", "named"),
    [
        ("z", 3, [], [], (), "starts at z, the pool is at a"),
        (None, 1, [5], [], (), "starts at None, the pool is at a"),
        ("a", 3, [], [("e9", 1)], (), "removes .*e9"),
        ("a", 2, [], [("e0", 1), ("e0", 1)], (), "removes .*e0"),
        ("a", 4, [0], [], (), "adds .*e0"),
        ("a", 5, [7, 7], [], (), "adds .*e7"),
        ("a", 5, [7], [], (), "leads to 4 edits, not 5"),
        ("a", 4, [7], [], (1, 2), "2 ages for 1 gists"),
    ],
)
def test_a_delta_that_does_not_fit_is_refused(base, num_edits, added, removed, ages, named) -> None:
    pool = pool_of()
    snapshot = pool.commit("s", None, "a", 3, gists(range(3)), [])
    before = pool.usage(), content_of(snapshot)
    with pytest.raises(SnapshotNotFound, match=named):
        pool.commit("s", base, "b", num_edits, gists(added), removed, ages)
    assert (pool.usage(), content_of(snapshot)) == before
    pool.commit("s", "a", "b", 4, gists([7]), [])


def test_a_gist_of_another_shape_is_refused() -> None:
    good = gist("e0", 5)
    wrong = [
        replace(good, features=Packed.of(torch.ones(5, 3))),
        replace(good, latents=gist("e0", 4).latents),
        replace(good, latents=Packed(good.latents.data, good.latents.scale[:1])),
        Gist("e0", 1, *(Packed(p.data[:0], p.scale[:0]) for p in (good.features, good.latents))),
    ]
    pool = pool_of()
    for bad in wrong:
        with pytest.raises(GistFormatError, match=r"gist of e0 have shape.*compress the edit again"):
            pool.commit("s", None, "a", 1, [bad], [])
    assert pool.usage().used_bytes == 0


def test_ages_come_with_the_delta_or_follow_its_order() -> None:
    pool = pool_of()
    pool.commit("s", None, "a", 2, gists(range(2)), [], [50, 10])
    snapshot = pool.commit("s", "a", "b", 4, gists([2, 3]), [])
    assert {edit[0]: age for edit, (_, age) in content_of(snapshot).items()} == {"e0": 50, "e1": 10, "e2": 51, "e3": 52}


def test_a_full_pool_takes_nothing_more_but_can_be_changed_and_emptied() -> None:
    four = gists(range(4))
    one = pool_of()
    one.commit("s", None, "a", 1, four[:1], [])
    each = one.usage().used_bytes
    pool = pool_of(4 * each)
    pool.commit("s", None, "a", 4, four, [])
    with pytest.raises(PoolFull, match=f"needs {each} bytes more and uses {4 * each} of {4 * each}"):
        pool.commit("s", "a", "b", 5, gists([5]), [])
    with pytest.raises(PoolFull):
        pool.commit("s", "a", "b", 4, [gist("e0", 17, version=2)], keys([0]))
    snapshot = pool.commit("s", "a", "b", 4, [gist("e0", 16, version=2)], keys([0]))
    assert pool.usage().used_bytes == 5 * each  # the parent still reads what was replaced
    snapshot = pool.commit("s", "b", "c", 3, [], keys([1]))
    pool.retire("a")
    pool.retire("b")
    assert pool.usage().used_bytes == 3 * each
    snapshot = pool.commit("s", "c", "d", 4, gists([5]), [])
    check_table(snapshot.table, content_of(snapshot))
    for name in ("c", "d"):
        pool.retire(name)
    assert pool.usage().used_bytes == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_room_that_edits_need_is_known_before(dtype: torch.dtype) -> None:
    pool, sizes = pool_of(dtype=dtype), [1, 15, 16, 17, 40]
    pool.commit("s", None, "a", 5, [gist(f"e{i}", size) for i, size in enumerate(sizes)], [])
    used, row = pool.usage().used_bytes, 16 * 8 * dtype.itemsize
    assert used <= room_for(adapter(), dtype, len(sizes), sum(sizes)) <= used + len(sizes) * row


def test_a_retired_snapshot_stays_for_its_holders_and_takes_no_more() -> None:
    pool = pool_of()
    pool.commit("s", None, "a", 2, gists(range(2)), [])
    held = pool.acquire("a")
    pool.retire("a")
    with pytest.raises(SelectionFailed, match="snapshot a is not in"):
        pool.acquire("a")
    assert held.holders == 1
    check_table(held.table, content_of(held))
    assert len(held.table.edits) == 2
    pool.release(held)
    usage = pool.usage()
    assert (usage.used_bytes, usage.edits, usage.device_bytes_used) == (0, 0, 0)
    pool.retire("unknown")


def test_a_set_that_returns_to_an_earlier_content_reads_the_newer_copy() -> None:
    pool = pool_of()
    pool.commit("s", None, "a", 2, gists(range(2)), [])
    held = pool.acquire("a")
    pool.commit("s", "a", "b", 1, [], keys([1]))
    back = pool.commit("s", "b", "a", 2, gists([1]), [])
    assert pool.acquire("a") is back
    assert pool.usage().snapshots == 2
    assert len(held.table.edits) == 2
    for snapshot in (held, back):
        pool.release(snapshot)
    pool.retire("b")
    assert pool.usage().edits == 2
    pool.retire("a")
    assert pool.usage().used_bytes == 0


def test_after_forget_the_set_starts_from_nothing() -> None:
    pool = pool_of()
    pool.commit("s", None, "a", 2, gists(range(2)), [])
    pool.forget("s")
    fresh = pool.commit("s", None, "b", 1, gists([7]), [])
    assert fresh.table.edits == keys([7])
    assert len(pool.acquire("a").table.edits) == 2


def test_an_append_does_not_copy_and_an_arena_doubles() -> None:
    pool = pool_of()
    base = pool.commit("s", None, "0", 10, gists(range(10)), [])
    arenas = {base.table.arena.data_ptr()}
    for i in range(10, 100):
        base = pool.commit("s", base.id, str(i), i + 1, gists([i]), [])
        arenas.add(base.table.arena.data_ptr())
    assert len(base.table.arena) == 128
    assert len(arenas) == 4  # of 16, 32, 64 and 128 rows


def test_an_arena_is_compacted_once_more_than_a_quarter_is_dead() -> None:
    pool = pool_of()
    first = pool.commit("s", None, "a", 40, gists(range(40), 20), [])
    quarter = pool.commit("s", "a", "b", 30, [], keys(range(10)))
    assert quarter.table.arena is first.table.arena
    assert len(quarter.table.keys.keys) == 80
    more = pool.commit("s", "b", "c", 29, [], keys([10]))
    assert more.table.arena is not first.table.arena
    assert len(more.table.keys.keys) == more.table.owned_rows == 58
    for snapshot in (first, quarter, more):
        check_table(snapshot.table, content_of(snapshot))
    empty = pool.commit("s", "c", "d", 0, [], keys(range(11, 40)))
    assert (len(empty.table.keys.keys), empty.table.keys.num_edits) == (0, 0)


def fault_scenarios() -> dict[str, tuple[int, list[int], list[int]]]:
    """Edits before, added and removed by the commit that is disturbed."""
    return {
        "append": (3, [50, 51], []),
        "replace": (8, [50], [2]),
        "growth": (15, [50, 51], []),
        "compaction": (12, [], [0, 1, 2, 3, 4]),
        "all": (8, [50, 51], list(range(8))),
    }


class FailAt(TorchDispatchMode):
    """The n-th tensor operation runs out of memory."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.left = number

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.left -= 1
        if self.left < 0:
            raise MemoryError("injected")
        return func(*args, **(kwargs or {}))


_POOL = str(Path(gists_module.__file__).parent)


@contextmanager
def fail_at_line(number: int) -> Iterator[None]:
    """The n-th line that the pool runs while it builds a commit runs out of memory."""
    left = number

    def trace(frame: FrameType, event: str, _arg: object) -> Any:
        nonlocal left
        code = frame.f_code
        if not code.co_filename.startswith(_POOL) or code.co_name in ("_publish", "retire", "_reclaim"):
            return None
        if event == "line":
            left -= 1
            if left < 0:
                sys.settrace(None)
                raise MemoryError("injected")
        return trace

    old = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(old)


@pytest.mark.slow
@pytest.mark.parametrize("scenario", fault_scenarios())
@pytest.mark.parametrize("fault", [FailAt, fail_at_line])
def test_a_commit_that_fails_at_any_step_changes_nothing_and_a_retry_works(scenario: str, fault: Any) -> None:
    before, added, removed = fault_scenarios()[scenario]
    pool = pool_of()
    first = pool.commit("s", None, "a", before, gists(range(before)), [])
    content, usage = content_of(first), pool.usage()
    wanted = before + len(added) - len(removed)
    new = gists(added, 30)
    for step in range(10_000):
        try:
            with fault(step):
                second = pool.commit("s", "a", "b", wanted, new, keys(removed))
        except MemoryError:
            assert pool.usage() == usage
            check_table(first.table, content)
            with pytest.raises(SelectionFailed):
                pool.acquire("b")
        else:
            break
    assert step > 5
    expected = {edit: kept for edit, kept in content.items() if edit not in keys(removed)}
    expected |= {g.edit: (g, before + i) for i, g in enumerate(new)}
    check_table(second.table, expected)
    check_table(first.table, content)
    for name in ("a", "b"):
        pool.retire(name)
    assert pool.usage().used_bytes == pool.usage().device_bytes_used == 0


def cached(num_tokens: int = 16) -> int:
    """Bytes of one picked edit in float32."""
    return 4 * num_tokens * adapter().shape.read_dim


def three_edits(device_bytes: int) -> tuple[GistPool, Any]:
    pool = pool_of(device_bytes=device_bytes)
    return pool, pool.commit("s", None, "a", 3, gists(range(3)), [])


def test_the_latest_used_edits_stay_on_the_device() -> None:
    pool, snapshot = three_edits(2 * cached())
    arena = pool.usage().device_bytes_used
    first = id(pool.picked(snapshot, 0).keys)
    pool.picked(snapshot, 1)
    assert id(pool.picked(snapshot, 0).keys) == first  # used again: now the second is the oldest
    pool.picked(snapshot, 2)
    assert pool.usage().device_bytes_used == arena + 2 * cached()
    assert id(pool.picked(snapshot, 0).keys) == first


def test_what_a_request_holds_stays_and_is_not_copied_twice() -> None:
    pool, snapshot = three_edits(cached())
    arena = pool.usage().device_bytes_used
    held = pool.picked(snapshot, 0)
    for row in (1, 2):
        pool.picked(snapshot, row)
    assert pool.usage().device_bytes_used == arena + 2 * cached()  # the held one and the latest
    assert pool.picked(snapshot, 0) is held
    pool.retire("a")
    assert torch.equal(held.keys, decoded(gist("e0", 16))[0])
    assert pool.usage().device_bytes_used == cached()
    del held
    assert pool.usage().device_bytes_used == 0


def test_an_edit_larger_than_the_device_cache_is_read_and_not_kept() -> None:
    pool, snapshot = three_edits(cached() - 1)
    arena = pool.usage().device_bytes_used
    picked = pool.picked(snapshot, 1)
    assert torch.equal(picked.values, decoded(gist("e1", 16))[1])
    del picked
    assert pool.usage().device_bytes_used == arena


def test_a_new_version_of_an_edit_is_never_served_from_the_cache_of_the_old() -> None:
    pool = pool_of()
    old = pool.commit("s", None, "a", 1, [gist("e", 16)], [])
    pool.picked(old, 0)
    pool.forget("s")
    again = replace(gist("e", 16, version=2), version=1)
    new = pool.commit("s", None, "b", 1, [again], [])
    assert torch.equal(pool.picked(new, 0).keys, decoded(again)[0])
