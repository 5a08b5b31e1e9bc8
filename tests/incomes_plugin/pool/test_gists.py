"""The pool's promises one by one: refusals, room, all or nothing, compaction, what stays on the device."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from incomes_plugin.errors import GistFormatError, PoolFull, SelectionFailed, SnapshotNotFound
from incomes_plugin.gist.spelling import BYTES
from incomes_plugin.gist.types import Gist, Packed
from incomes_plugin.pool import gists as gists_module
from incomes_plugin.pool.gists import GistPool, room_for
from incomes_plugin.pool.snapshot import SnapshotDelta
from tests.incomes_plugin.pool.small import SHAPE, Named, adapter, check_table, content_of, decoded, gist, pool_of

ROW_BYTES = 16 * 8 * 4


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


def test_what_is_switched_off_is_not_read_any_more_where_the_rest_of_the_commit_is_refused() -> None:
    pool = pool_of()
    snapshot = pool.commit("s", None, "a", 2, gists(range(2)), [])
    delta = SnapshotDelta("a", Named("s", 2, "b", 9), tuple(gists([5])), barred=("e0",))
    with pytest.raises(SnapshotNotFound, match="leads to 3 edits, not 9"):
        GistPool.commit(pool, delta)
    assert [pool.may_read(snapshot, row, 0) for row in range(2)] == [edit != "e0" for edit, _ in snapshot.table.edits]


def test_what_is_switched_off_in_a_set_is_not_read_in_a_copy_of_its_state_either() -> None:
    pool = pool_of()
    pool.commit("s", None, "a", 2, gists(range(2)), [])
    copy = pool.commit("s@?1", None, "copy", 2, gists(range(2)), [])
    assert all(pool.may_read(copy, row, 0) for row in range(2))
    GistPool.commit(pool, SnapshotDelta("a", Named("s", 2, "b", 2), barred=("e0",)))
    assert [pool.may_read(copy, row, 0) for row in range(2)] == [edit != "e0" for edit, _ in copy.table.edits]
    pool.forget("s@?1")
    assert [pool.may_read(copy, row, 0) for row in range(2)] == [edit != "e0" for edit, _ in copy.table.edits]
    assert set(pool._barred) == {"s"}, "copies leave nothing behind"


def test_a_full_pool_takes_nothing_more_but_can_be_changed_and_emptied() -> None:
    four = gists(range(4))
    one = pool_of()
    one.commit("s", None, "a", 1, four[:1], [])
    each = one.usage().used_bytes
    pool = pool_of(4 * each)
    pool.commit("s", None, "a", 4, four, [])
    with pytest.raises(PoolFull, match=f"needs {each} bytes more, .* holds {4 * each} of {4 * each}"):
        pool.commit("s", "a", "b", 5, gists([5]), [])
    with pytest.raises(PoolFull):
        pool.commit("s", "a", "b", 4, [gist("e0", 17, version=2)], keys([0]))
    snapshot = pool.commit("s", "a", "b", 4, [gist("e0", 16, version=2)], keys([0]))
    assert pool.usage().used_bytes == 5 * each  # the parent still reads what was replaced
    snapshot = pool.commit("s", "b", "c", 3, [], keys([1]))
    pool.retire("a")
    pool.retire("b")
    assert pool.usage().used_bytes == 3 * each
    snapshot = pool.commit("s", "c", "d", 3, [gist("e2", 16, version=2)], keys([2]))
    check_table(snapshot.table, content_of(snapshot))
    for name in ("c", "d"):
        pool.retire(name)
    usage = pool.usage()
    assert (usage.used_bytes, usage.held_bytes, usage.device_bytes_used) == (0, 0, 0)


@pytest.mark.parametrize("missing", [0, 1])
def test_a_new_arena_counts_and_the_room_is_found_again(missing: int) -> None:
    data = gist("e0", 16).num_bytes
    full, old, new = 13 * data, 12 * ROW_BYTES, 13 * ROW_BYTES
    pool = pool_of(full + old + new - missing)
    pool.commit("s", None, "a", 10, gists(range(10)), [])
    pool.commit("s", "a", "b", 12, gists([10, 11]), [])
    pool.retire("a")
    held = pool.usage()
    assert held.held_bytes == 12 * data + old
    if not missing:
        pool.commit("s", "b", "c", 13, gists([12]), [])
        assert pool.usage().held_bytes == pool.capacity_bytes
        pool.retire("b")
        assert pool.usage().held_bytes == full + new
        return
    with pytest.raises(PoolFull, match="as many as its edit set has of route keys"):
        pool.commit("s", "b", "c", 13, gists([12]), [])
    assert pool.usage() == held
    pool.commit("s", "b", "c", 11, [], keys([0]))
    pool.retire("b")
    assert pool.usage().held_bytes == 11 * data + old
    snapshot = pool.commit("s", "c", "d", 12, gists([12]), [])
    check_table(snapshot.table, content_of(snapshot))


@settings(max_examples=30, deadline=None)
@given(data=st.data(), capacity=st.integers(20_000, 200_000))
def test_what_admission_takes_always_fits(data: st.DataObject, capacity: int) -> None:
    """The server admits edits by `room_for`, up to seven eighths of the pool."""
    pool, heads = pool_of(capacity), {"red": None, "blue": None}
    living: dict[str, dict[str, int]] = {"red": {}, "blue": {}}
    for number in range(60):
        name = data.draw(st.sampled_from(sorted(heads)))
        sizes = data.draw(st.lists(st.integers(1, 40), max_size=8))
        everything = [size for edits in living.values() for size in edits.values()] + sizes
        if room_for(adapter(), torch.float32, len(everything), sum(everything)) > capacity - capacity // 8:
            sizes = []
        added = [gist(f"{name}{number}-{i}", size) for i, size in enumerate(sizes)]
        removed = data.draw(st.lists(st.sampled_from(sorted(living[name])), unique=True)) if living[name] else []
        for edit_id in removed:
            del living[name][edit_id]
        living[name] |= {new.edit_id: new.num_tokens for new in added}
        base, heads[name] = heads[name], f"{name}-{number}"
        pool.commit(name, base, heads[name], len(living[name]), added, [(edit_id, 1) for edit_id in removed])
        assert pool.usage().held_bytes <= capacity
        if base is not None:
            pool.retire(base)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_room_that_edits_need_is_known_before(dtype: torch.dtype) -> None:
    pool, sizes = pool_of(dtype=dtype), [1, 15, 16, 17, 40]
    pool.commit("s", None, "a", 5, [gist(f"e{i}", size) for i, size in enumerate(sizes)], [])
    used, row = pool.usage().used_bytes, 16 * 8 * dtype.itemsize
    room, moving = room_for(adapter(), dtype, len(sizes), sum(sizes)), 1.5 * len(sizes) * row
    spare = sum(sizes) * (SHAPE.room_per_token - SHAPE.bytes_per_token - BYTES)  # these have plain spellings
    assert used + moving + spare <= room <= used + 2 * moving + len(sizes) * row + spare


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


def test_an_arena_that_grows_has_an_eighth_to_spare() -> None:
    pool = pool_of()
    base = pool.commit("s", None, "0", 100, gists(range(100)), [])
    arena = base.table.arena
    assert len(arena) == 113
    for i in range(100, 114):
        assert base.table.arena is arena
        base = pool.commit("s", base.id, str(i), i + 1, gists([i]), [])
    assert len(base.table.arena) == 129


def test_a_commit_that_adds_costs_what_it_adds() -> None:
    """Python lines that run, and numbers that tensor operations write, while one edit joins few or many."""
    costs = []
    for count in (40, 4000):
        pool = pool_of()
        pool.commit("s", None, "a", count, gists(range(count), 1), [])
        new = gists([count], 1)
        with Costs() as cost:
            second = pool.commit("s", "a", "b", count + 1, new, [])
        assert second.table.edits[count] == ("e" + str(count), 1)
        costs.append((cost.lines, cost.numbers))
    assert costs[0] == costs[1]


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


class Costs(TorchDispatchMode):
    """Counts lines of the pool, and numbers of the tensors that operations make, but for views."""

    def __init__(self) -> None:
        super().__init__()
        self.lines = self.numbers = 0

    def __enter__(self) -> Costs:
        self._old = sys.gettrace()
        sys.settrace(self._trace)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        sys.settrace(self._old)
        super().__exit__(*error)

    def _trace(self, frame: FrameType, event: str, _arg: object) -> Any:
        if not frame.f_code.co_filename.startswith(_POOL):
            return None
        self.lines += event == "line"
        return self._trace

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and not func.is_view and "copy_" not in func.__name__:
            self.numbers += made.numel()
        return made


class FailAt(TorchDispatchMode):
    """The n-th tensor operation runs out of memory."""

    def __init__(self, number: int, pool: GistPool) -> None:
        super().__init__()
        self.left = number
        self.has_failed = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.left -= 1
        if self.left < 0 and not self.has_failed:
            self.has_failed = True
            raise MemoryError("injected")
        return func(*args, **(kwargs or {}))


_POOL = str(Path(gists_module.__file__).parent)


class FailAtLine:
    """The n-th line that the pool runs for a commit runs out of memory, whatever it does.

    Once the new state is in, the commit is done: `_tidy` catches what its callees raise, and nothing is to be retried.
    """

    def __init__(self, number: int, pool: GistPool) -> None:
        self.left = number
        self.has_failed = self._is_done = False
        self._before = pool._state

    def __enter__(self) -> FailAtLine:
        self._old = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(self, *error: object) -> None:
        sys.settrace(self._old)

    def _trace(self, frame: FrameType, event: str, _arg: object) -> Any:
        code = frame.f_code
        if not code.co_filename.startswith(_POOL) or self.has_failed:
            return None
        if code.co_name == "commit" and "state" in frame.f_locals:
            self._is_done = frame.f_locals["self"]._state is frame.f_locals["state"] is not self._before
        if event == "line" and not (self._is_done and code.co_name in ("commit", "_tidy")):
            self.left -= 1
            if self.left < 0:
                self.has_failed = True
                raise MemoryError("injected")
        return self._trace


def memory_of(pool: GistPool, snapshot: Any) -> Any:
    """All that a commit might change: the pool's state, and every list and tensor that the snapshot shows."""
    table = snapshot.table
    numbers = [table.keys.keys.clone(), table.keys.owners.clone()]
    return pool.usage(), content_of(snapshot), pool._state, [part.tolist() for part in numbers]


@pytest.mark.slow
@pytest.mark.parametrize("scenario", fault_scenarios())
@pytest.mark.parametrize("fault", [FailAt, FailAtLine])
@pytest.mark.parametrize("same_id", [False, True])
def test_a_commit_that_fails_at_any_step_changes_nothing_and_a_retry_works(
    scenario: str, fault: Any, same_id: bool
) -> None:
    before, added, removed = fault_scenarios()[scenario]
    wanted = before + len(added) - len(removed)
    old, new = gists(range(before)), gists(added, 30)
    name, failures = "a" if same_id else "b", 0
    for step in range(10_000):
        pool = pool_of(device_bytes=0)
        first = pool.commit("s", None, "a", before, old, [])
        content, memory = content_of(first), memory_of(pool, first)
        injected = fault(step, pool)
        try:
            with injected:
                second = pool.commit("s", "a", name, wanted, new, keys(removed))
        except MemoryError:
            failures += 1
            assert memory_of(pool, first) == memory
            check_table(first.table, content)
            if not same_id:
                with pytest.raises(SelectionFailed):
                    pool.acquire("b")
            second = pool.commit("s", "a", name, wanted, new, keys(removed))
        expected = {edit: kept for edit, kept in content.items() if edit not in keys(removed)}
        expected |= {g.edit: (g, before + i) for i, g in enumerate(new)}
        check_table(second.table, expected)
        if not same_id:
            check_table(first.table, content)
        for each in ("a", "b"):
            pool.retire(each)
        usage = pool.usage()
        assert (usage.used_bytes, usage.held_bytes, usage.device_bytes_used) == (0, 0, 0)
        if not injected.has_failed:
            break
    assert failures > 5


def cached(num_tokens: int = 16) -> int:
    """Bytes of one picked edit in float32 with a plain spelling: a key, a token, the three before it, place and
    pick for each."""
    return num_tokens * (4 * (adapter().shape.read_dim + adapter().copier.config["copy_dim"]) + 8 * (1 + 3 + 2))


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
    arena, made = pool.usage().device_bytes_used, gist("e1", 16)
    picked = pool.picked(snapshot, 1)
    assert torch.equal(picked.values, decoded(made)[1])
    assert torch.equal(picked.spelled, made.spelling.table())
    assert picked.spelled[:2].tolist() == [[0, -2, -2, -2, 0, 0], [1, 0, -2, -2, 1, 0]]
    assert torch.equal(picked.copy_keys, adapter().copier.keys_of(made.latents.unpack(), made.spelling))
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


def test_a_label_shares_the_gists_of_the_state_that_it_is_made_from() -> None:
    """The set goes on without them, they stay for the label, and go with it."""
    pool = pool_of()
    first = pool.commit("s", None, "a", 3, gists(range(3)), [])
    newest = pool.commit("s", "a", "b", 3, gists([3]), keys([0]))
    before = pool.usage()
    label = pool.commit("s", "b", "c", 3, gists([0]), keys([3]), label="production")
    assert {edit: found for edit, (found, _) in content_of(label).items() if edit != ("e0", 1)} == {
        edit: found for edit, (found, _) in content_of(newest).items() if edit != ("e3", 1)
    }
    one = gists([0])[0]
    assert pool.usage().edits == before.edits + 1
    assert pool.usage().used_bytes == before.used_bytes + one.num_bytes + 3 * ROW_BYTES
    assert set(first.table.edits) == set(keys(range(3)))
    pool.commit("s", "b", "d", 0, [], keys([1, 2, 3]))
    pool.retire("a")
    pool.retire("b")
    assert set(label.table.edits) == set(keys(range(3)))
    assert pool.usage().edits == 3
    pool.retire("c")
    assert (pool.usage().edits, pool.usage().used_bytes) == (0, 0)


def test_a_label_at_a_state_that_is_there_costs_nothing_and_one_without_room_changes_nothing() -> None:
    pool = pool_of()
    first = pool.commit("s", None, "a", 3, gists(range(3)), [])
    pool.commit("s", "a", "b", 4, gists([3]), [])
    before = pool.usage()
    assert pool.commit("s", "b", "a", 3, [], keys([3]), label="production") is first
    assert pool.usage() == before
    pool.capacity_bytes = before.held_bytes + 2 * ROW_BYTES - 1
    with pytest.raises(PoolFull):
        pool.commit("s", "b", "c", 2, [], keys([0, 3]), label="production")
    with pytest.raises(SnapshotNotFound, match="not in the pool"):
        pool.commit("s", "z", "c", 2, [], keys([0, 3]), label="production")
    with pytest.raises(SnapshotNotFound, match="not in the pool"):
        pool.commit("t", "a", "c", 2, [], keys([0, 3]), label="production")
    assert pool.usage() == replace(before, capacity_bytes=pool.capacity_bytes)
    pool.capacity_bytes += 1
    assert set(pool.commit("s", "b", "c", 2, [], keys([0, 3]), label="production").table.edits) == set(keys([1, 2]))
