"""GistPool against a dictionary: whatever the history of commits, every live snapshot reads back what it should."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from incomes_plugin.errors import GistFormatError, PoolFull, SelectionFailed, SnapshotNotFound
from incomes_plugin.gist.types import Gist
from incomes_plugin.pool.layout import PageLayout
from incomes_plugin.pool.pages import GistPool, PooledSnapshot

L, S, K, D = 2, 4, 2, 3
SHUFFLE = torch.randperm(2 * S * K * D, generator=torch.Generator().manual_seed(1))


def scrambled_page(keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """A backend whose packing nobody would guess."""
    return torch.cat([keys.flatten(), values.flatten()]).float()[SHUFFLE]


def make_pool(pages: int = 64, max_gists: int | None = None) -> GistPool:
    layout = PageLayout.probe(scrambled_page, (S, K, D), torch.device("cpu"))
    zero = torch.full((L, K, D), -1.0)
    return GistPool(torch.zeros(L, pages, layout.page_numel), layout, zero, max_gists)


def gist(number: int, size: int, version: int = 1) -> Gist:
    keys = torch.full((L, size, K, D), float(number * 100 + version)) + torch.arange(size)[None, :, None, None]
    return Gist(f"edit_{number}", version, keys, keys + 0.5)


def content(pool: GistPool, snapshot: PooledSnapshot) -> dict[tuple[str, int], list[float]]:
    """Keys of every edit, by the pool's own owner table."""
    found: dict[tuple[str, int], list[float]] = {}
    keys = pool.read_keys(1, snapshot)
    values = pool.storage[1].view(-1)[pool._places(snapshot.pages, torch.arange(len(keys)).numpy(), pool.layout.values)]
    owners = list(pool.owners(snapshot))
    assert len(owners) == len(keys) == snapshot.num_entries
    assert owners[0] is None
    assert torch.equal(keys[0], torch.full((K, D), -1.0))
    assert torch.equal(values[0], torch.zeros(K, D))
    for owner, key, value in zip(owners[1:], keys[1:], values[1:], strict=True):
        assert owner is not None
        assert torch.equal(value, key + 0.5)
        assert (key == key[0, 0]).all()
        found.setdefault(owner, []).append(float(key[0, 0]))
    return {owner: sorted(numbers) for owner, numbers in found.items()}


def expected(gists: list[Gist]) -> dict[tuple[str, int], list[float]]:
    return {(g.edit_id, g.version): sorted(g.keys[1, :, 0, 0].tolist()) for g in gists}


def test_the_probe_finds_a_scrambled_layout() -> None:
    layout = make_pool().layout
    page = scrambled_page(torch.arange(S * K * D).view(S, K, D), torch.zeros(S, K, D))
    assert torch.equal(page[layout.keys], torch.arange(S * K * D).view(S, K, D).float())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.lists(st.integers(1, 6), max_size=5), st.integers(0, 5), st.booleans()), max_size=12))
def test_every_live_snapshot_keeps_its_content(steps: list[tuple[list[int], int, bool]]) -> None:
    pool, head, live, present, number = make_pool(256), None, {}, {}, 0
    for version, (sizes, num_removed, retire) in enumerate(steps):
        added = [gist(number + i, size) for i, size in enumerate(sizes)]
        number += len(added)
        removed = sorted(present)[:: max(1, len(present) // max(1, num_removed))][:num_removed]
        present = {k: v for k, v in present.items() if k not in removed} | {(g.edit_id, g.version): g for g in added}
        snapshot = pool.commit("set", head, f"snap_{version}", len(present), added, removed)
        if retire and head is not None:
            pool.retire(head)
            live.pop(head)
        head = snapshot.id
        live[head] = (snapshot, expected(list(present.values())))
        for kept, what in live.values():
            assert content(pool, kept) == what
    for name in list(live):
        pool.retire(name)
    assert pool.usage().free_gists == pool.usage().capacity_gists


def test_with_a_router_every_edit_is_gathered_from_its_places() -> None:
    """After additions, removals and copied pages, in both snapshots."""
    pool = make_pool(max_gists=5)
    generator = torch.Generator().manual_seed(3)
    gists = [Gist(f"edit_{i}", 1, *torch.randn(2, L, 1 + i % 5, K, D, generator=generator)) for i in range(14)]
    first = pool.commit("set", None, "a", 9, gists[:9], [])
    second = pool.commit("set", "a", "b", 12, gists[9:], [("edit_2", 1), ("edit_7", 1)])
    for snapshot, members in (
        (first, gists[:9]),
        (second, [g for g in gists if g.edit_id not in ("edit_2", "edit_7")]),
    ):
        assert snapshot.routes is not None
        rows = torch.tensor([snapshot.routes.row_of[g.edit_id, 1] for g in members])
        slots = snapshot.routes.slots[rows][:, None]
        for layer in range(L):
            keys, values = pool.entries(layer, pool.places(snapshot, slots))
            assert keys.shape == (len(members), 1, 5, K, D)
            for row, member in enumerate(members):
                assert torch.equal(keys[row, 0, : member.num_gists], member.keys[layer])
                assert torch.equal(values[row, 0, : member.num_gists], member.values[layer])


def test_a_commit_copies_only_changed_pages() -> None:
    pool = make_pool(pages=1000)
    pool.commit("set", None, "a", 500, [gist(i, 4) for i in range(500)], [])
    free = pool.usage().free_gists
    pool.commit("set", "a", "b", 500, [gist(900, 4)], [("edit_250", 1)])
    assert (free - pool.usage().free_gists) // S <= 3


def test_a_full_pool_leaves_everything_as_it_was() -> None:
    pool = make_pool(pages=3)
    first = pool.commit("set", None, "a", 2, [gist(1, 4), gist(2, 4)], [])
    before, free = content(pool, first), pool.usage().free_gists
    with pytest.raises(PoolFull):
        pool.commit("set", "a", "b", 3, [gist(3, 6)], [])
    assert content(pool, first) == before
    assert pool.usage().free_gists == free
    assert pool.commit("set", "a", "b", 3, [gist(3, 3)], []).num_entries == 12


@pytest.mark.parametrize(
    ("base", "num_edits", "added", "removed"),
    [
        ("x", 2, [gist(2, 1)], []),
        ("a", 5, [gist(2, 1)], []),
        ("a", 1, [gist(1, 1)], []),
        ("a", 0, [], [("edit_9", 1)]),
        ("a", 3, [gist(2, 1), gist(2, 1)], []),
    ],
)
def test_a_delta_that_does_not_fit_is_refused(base: str, num_edits: int, added: list, removed: list) -> None:
    pool = make_pool()
    first = pool.commit("set", None, "a", 1, [gist(1, 2)], [])
    with pytest.raises(SnapshotNotFound):
        pool.commit("set", base, "b", num_edits, added, removed)
    assert content(pool, first) == expected([gist(1, 2)])


def test_ages_come_with_the_delta_or_follow_its_order() -> None:
    pool = make_pool(max_gists=8)
    pool.commit("set", None, "a", 2, [gist(1, 2), gist(2, 1)], [], [40, 7])
    pool.commit("set", "a", "b", 3, [gist(3, 1)], [])
    routes = pool.commit("set", "b", "c", 3, [gist(4, 2)], [("edit_1", 1)], [12]).routes
    assert routes is not None
    ages = {edit: int(age) for (edit, _), age in zip(routes.edits, routes.ages, strict=True)}
    assert ages == {"edit_2": 7, "edit_3": 41, "edit_4": 12}
    with pytest.raises(SnapshotNotFound):
        pool.commit("set", "c", "d", 4, [gist(5, 1)], [], [1, 2])


def test_a_gist_of_another_shape_is_refused() -> None:
    with pytest.raises(GistFormatError):
        make_pool().commit("set", None, "a", 1, [Gist("e", 1, torch.zeros(L, 1, K, 9), torch.zeros(L, 1, K, 9))], [])


def test_pages_return_after_the_last_holder() -> None:
    pool = make_pool()
    pool.commit("set", None, "a", 1, [gist(1, 4)], [])
    held = pool.acquire("a")
    pool.commit("set", "a", "b", 0, [], [("edit_1", 1)])
    pool.retire("a")
    with pytest.raises(SelectionFailed):
        pool.acquire("a")
    assert content(pool, held) == expected([gist(1, 4)])
    pool.release(held)
    pool.retire("b")
    assert pool.usage().free_gists == pool.usage().capacity_gists


def test_an_edit_is_replaced_by_its_next_version_in_one_commit() -> None:
    pool = make_pool()
    pool.commit("set", None, "a", 2, [gist(1, 3), gist(2, 2)], [])
    snapshot = pool.commit("set", "a", "b", 2, [gist(1, 1, version=2)], [("edit_1", 1)])
    assert content(pool, snapshot) == expected([gist(2, 2), gist(1, 1, version=2)])


def test_returning_to_an_earlier_content_keeps_shared_pages() -> None:
    pool = make_pool()
    gists = [gist(i, 4) for i in range(6)]
    pool.commit("set", None, "a", 6, gists, [])
    pool.commit("set", "a", "b", 7, [gist(7, 2)], [])
    back = pool.commit("set", "b", "a", 6, [], [("edit_7", 1)])
    pool.retire("b")
    again = pool.commit("set", "a", "a", 6, [], [])
    assert content(pool, again) == content(pool, back) if back.resident else expected(gists)
    assert content(pool, again) == expected(gists)
    pool.retire("a")
    assert pool.usage().free_gists == pool.usage().capacity_gists
