"""Indexes of a pool: whatever was committed, and however late the thread is, routing finds what comparing all finds."""

from __future__ import annotations

import random
import threading

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from incomes_plugin.pool import indexing
from incomes_plugin.pool.gists import GistPool, PooledSnapshot
from incomes_plugin.selection import candidates, token_index
from incomes_plugin.selection.candidates import best_edits
from incomes_plugin.selection.routing import RouteKeys, similarities
from incomes_plugin.selection.token_index import ArenaIndex
from tests.incomes_plugin.pool.small import adapter, gist, pool_of

R = 8


@pytest.fixture(autouse=True)
def never_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row is due, and an index names everything it holds: only its bookkeeping can go wrong."""
    monkeypatch.setattr(indexing, "_MOST_LATE_ROWS", 0)
    monkeypatch.setattr(candidates, "_NEAREST", 5000)
    monkeypatch.setattr(candidates, "_COMPARED", 5000)
    monkeypatch.setattr(token_index, "_PROBES", 5000)


def check(snapshot: PooledSnapshot, seed: int) -> None:
    """The best edits are those of a comparison with all, and so are their cosines."""
    table = snapshot.table.keys
    if not table.num_edits:
        return
    generator = torch.Generator().manual_seed(seed)
    directions, weights = F.normalize(torch.randn(5, R, generator=generator), dim=-1), torch.rand(5) + 0.1
    exact = RouteKeys(table.keys, table.owners, table.num_edits)
    similar = similarities(directions, exact)
    expected = (weights @ similar).topk(min(4, table.num_edits)).values
    edits, cosines = best_edits(weights, directions, table, 4)
    torch.testing.assert_close(weights @ cosines, expected)
    torch.testing.assert_close(cosines, similar[:, edits])


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    commits=st.lists(
        st.tuples(st.lists(st.integers(1, 40), max_size=12), st.integers(0, 8), st.booleans()), min_size=2, max_size=10
    ),
    seed=st.integers(0, 99),
)
def test_any_commits_and_any_delay(commits: list[tuple[list[int], int, bool]], seed: int) -> None:
    """A commit adds edits of these lengths and removes some; only then, or not yet, the thread gets to work."""
    rng = random.Random(seed)
    pool = pool_of(index_from_edits=3)
    living: list[PooledSnapshot] = []
    head, edits = None, []
    for number, (sizes, remove, waits) in enumerate(commits):
        removed = rng.sample(edits, min(remove, len(edits)))
        added = [gist(f"e{number}-{i}", size) for i, size in enumerate(sizes)]
        edits = [edit for edit in edits if edit not in removed] + [new.edit for new in added]
        living.append(pool.commit("red", head, f"s{number}", len(edits), added, removed))
        head = f"s{number}"
        if waits:
            pool.indexer.wait()
        for snapshot in living:
            check(snapshot, seed + number)
    pool.indexer.wait()
    for snapshot in living:
        check(snapshot, seed)


def grown(pool: GistPool, edit_set: str, count: int) -> PooledSnapshot:
    added = [gist(f"{edit_set}-{i}", 10) for i in range(count)]
    snapshot = pool.commit(edit_set, None, f"{edit_set}-1", count, added, [])
    pool.indexer.wait()
    return snapshot


def test_only_a_large_table_has_an_index() -> None:
    pool = pool_of(index_from_edits=20)
    assert grown(pool, "red", 19).table.index.rows is None
    before = pool.usage().device_bytes_used
    found = grown(pool, "blue", 20)
    assert found.table.index.rows is not None
    arena = found.table.arena.nbytes
    assert pool.usage().device_bytes_used > before + arena  # the index counts


def test_edit_sets_never_share_an_index() -> None:
    pool = pool_of(index_from_edits=10)
    red, blue = grown(pool, "red", 12).table.index, grown(pool, "blue", 12).table.index
    assert red.rows is not None
    assert blue.rows is not None
    assert red.rows.index is not blue.rows.index


def test_a_commit_does_not_wait_and_its_edits_are_found_before_the_thread_is_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = pool_of(index_from_edits=10)
    base = grown(pool, "red", 40)
    go, grow = threading.Event(), ArenaIndex.grow
    monkeypatch.setattr(ArenaIndex, "grow", lambda self, keys: (go.wait(10), grow(self, keys))[1])
    replaced = base.table.edits[3]
    new = gist("red-3", 12, version=2)
    snapshot = pool.commit("red", base.id, "red-2", 40, [new], [replaced])
    directions = adapter().router.route_keys(new.features.unpack()[:5])
    best = best_edits(torch.ones(5), directions, snapshot.table.keys, 4)[0]
    assert snapshot.table.edits[best[0]] == new.edit
    assert replaced not in [snapshot.table.edits[row] for row in best]
    assert snapshot.table.index.covered == 40
    go.set()
    pool.indexer.wait()
    assert snapshot.table.index.covered == 41
    assert base.table.edits[3] == replaced
    check(snapshot, 0)
    check(base, 0)


def test_a_commit_succeeds_where_no_thread_starts(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_thread(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    pool = pool_of(index_from_edits=10)
    first = grown(pool, "red", 12)
    assert "no index grows" in caplog.text
    check(first, 0)
    with monkeypatch.context() as again:
        again.setattr(threading.Thread, "start", start)
        pool.commit("red", first.id, "red-2", 13, [gist("late", 9)], [])
        pool.indexer.wait()
    assert pool.acquire("red-2").table.index.covered == 13


def test_a_thread_that_fails_costs_no_edit_and_the_next_commit_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = pool_of(index_from_edits=10)
    seen: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: seen.append(str(args.exc_value)))
    grow = ArenaIndex.grow

    def fails(self: ArenaIndex, keys: torch.Tensor) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(ArenaIndex, "grow", fails)
    first = grown(pool, "red", 12)
    assert first.table.index.rows is None
    check(first, 0)
    monkeypatch.setattr(ArenaIndex, "grow", grow)
    second = pool.commit("red", first.id, "red-2", 13, [gist("late", 9)], [])
    pool.indexer.wait()
    assert second.table.index.covered == 13
    assert seen == ["no room"]
