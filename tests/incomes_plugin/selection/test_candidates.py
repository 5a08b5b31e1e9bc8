"""The best edits: through an index the same scores as by comparing all, and the same edits nearly always."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from incomes_plugin.selection import candidates
from incomes_plugin.selection.candidates import best_edits
from incomes_plugin.selection.routing import RouteKeys, similarities
from incomes_plugin.selection.token_index import ArenaIndex

R, W, T = 32, 16, 9
WORDS = 400


def language(num_edits: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Route keys of edits made of words: a few that nearly all have, and two rare ones that tell them apart."""
    generator = torch.Generator().manual_seed(seed)
    words = F.normalize(torch.randn(WORDS, R, generator=generator), dim=-1)
    common = torch.randint(0, 12, (num_edits, W - 2), generator=generator)
    rare = torch.randint(12, WORDS, (num_edits, 2), generator=generator)
    ids = torch.cat([rare, common], 1)
    noise = torch.randn(num_edits, W, R, generator=generator) * 0.3 / R**0.5
    return F.normalize(words[ids] + noise, dim=-1), ids


def question_of(keys: torch.Tensor, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights and directions of a question about the edit with these keys `[W, R]`."""
    generator = torch.Generator().manual_seed(seed)
    directions = F.normalize(keys[:T] + torch.randn(T, R, generator=generator) * 0.3 / R**0.5, dim=-1)
    return torch.tensor([3.0, 3.0, *[0.3] * (T - 2)]), directions


def indexed(keys: torch.Tensor, owners: torch.Tensor, num_edits: int, covered: int) -> RouteKeys:
    index = ArenaIndex()
    index.grow(keys[:covered])
    return RouteKeys(keys, owners, num_edits, index)


def test_found_through_an_index_are_the_edits_that_comparing_all_finds() -> None:
    count = 3000
    keys, _ = language(count)
    table = indexed(keys, torch.arange(count), count, covered=count)
    exact = RouteKeys(keys, torch.arange(count), count)
    right = shared = 0
    for edit in range(0, count, 30):
        weights, directions = question_of(keys[edit], seed=edit)
        expected, _ = best_edits(weights, directions, exact, 4)
        found, similar = best_edits(weights, directions, table, 4)
        torch.testing.assert_close(similar, similarities(directions, exact)[:, found])
        assert (weights @ similar).diff().le(0).all()
        right += edit in found
        shared += len({*found.tolist()} & {*expected.tolist()})
    assert right >= 99
    assert shared >= 0.97 * 400


def test_rows_that_the_index_lacks_are_compared() -> None:
    count, covered = 600, 400
    keys, _ = language(count)
    table = indexed(keys, torch.arange(count), count, covered)
    for edit in (covered, count - 1):
        weights, directions = question_of(keys[edit], seed=edit)
        assert best_edits(weights, directions, table, 4)[0][0] == edit


def test_an_edit_that_has_gone_is_never_found_however_often_it_was_replaced() -> None:
    """A thousand former versions of an edit are nearer than the one that is left, and may not crowd it out."""
    versions, others = 1000, 500
    keys, _ = language(others + 1)
    noise = torch.randn(versions, W, R, generator=torch.Generator().manual_seed(3)) * 0.01
    keys = torch.cat([F.normalize(keys[:1] + noise, dim=-1), keys[1:], F.normalize(keys[:1] + 0.2 * noise[:1], dim=-1)])
    num_edits = others + 1
    owners = torch.cat([torch.full((versions,), num_edits), torch.arange(num_edits)])
    table = indexed(keys, owners, num_edits, covered=len(keys))
    weights, directions = question_of(keys[0], seed=1)
    found, similar = best_edits(weights, directions, table, 8)
    assert found[0] == num_edits - 1
    assert len(found) == 8
    assert found.max() < num_edits
    assert similar.shape == (T, 8)


def test_edits_of_several_rows_are_compared_whole() -> None:
    """Only one row of an edit may be named by the index; its score is that of all its rows."""
    count = 300
    keys, _ = language(2 * count)
    owners = torch.arange(count).repeat_interleave(2)
    exact = RouteKeys(keys, owners, count)
    table = indexed(keys, owners, count, covered=2 * count)
    for edit in range(0, count, 20):
        weights, directions = question_of(torch.cat([keys[2 * edit, :2], keys[2 * edit + 1, :7]]), seed=edit)
        found, similar = best_edits(weights, directions, table, 4)
        torch.testing.assert_close(similar, similarities(directions, exact)[:, found])
        assert edit in found


def test_a_view_of_fewer_rows_than_the_index_holds_sees_only_its_own() -> None:
    count = 500
    keys, _ = language(count)
    table = indexed(keys, torch.arange(count), count, covered=count)
    earlier = RouteKeys(keys[:200], torch.arange(200), 200, table.index)
    weights, directions = question_of(keys[300], seed=0)
    assert best_edits(weights, directions, table, 4)[0][0] == 300
    assert best_edits(weights, directions, earlier, 4)[0].max() < 200


def test_rows_that_move_to_another_arena_keep_their_edits(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 400
    keys, _ = language(count + 50)
    index = ArenaIndex()
    index.grow(keys[:count])
    kept = torch.ones(count, dtype=torch.bool)
    kept[::4] = False
    moved = index.moved(kept)
    assert moved.covered == 300
    index.grow(keys[: count + 20])  # a thread that still works for the arena that was left
    arena = torch.cat([keys[:count][kept], keys[count:]])
    moved.grow(arena)
    table = RouteKeys(arena, torch.arange(len(arena)), len(arena), moved)
    for row in (0, 150, 299, 300, 349):
        weights, directions = question_of(arena[row], seed=row)
        assert best_edits(weights, directions, table, 4)[0][0] == row
    again = moved.moved(torch.arange(len(arena)) >= 100)
    table = RouteKeys(arena[100:], torch.arange(250), 250, again)
    weights, directions = question_of(arena[299], seed=0)
    assert best_edits(weights, directions, table, 4)[0][0] == 199


def test_an_index_that_was_outgrown_is_made_anew() -> None:
    keys, _ = language(1000)
    index = ArenaIndex()
    index.grow(keys[:100])
    assert index.rows is not None
    first = index.rows.index
    index.grow(keys[:400])
    assert index.rows.index is first
    index.grow(keys)
    assert index.rows.index is not first
    assert (index.covered, index.rows.index.num_rows) == (1000, 1000)


def test_padding_is_not_indexed() -> None:
    keys, _ = language(100)
    keys[:, 5:] = keys[:, 5:6]
    index = ArenaIndex()
    index.grow(keys)
    assert index.rows is not None
    places = index.rows.index.num_bytes - 600 * (R + 8)
    assert places % (R * 4) == 0


def test_light_words_are_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    keys, _ = language(300)
    table = indexed(keys, torch.arange(300), 300, covered=300)
    weights, directions = question_of(keys[7], seed=0)
    weights[2:] = 0.001
    asked: list[int] = []
    nearest = table.index.rows.index.nearest
    monkeypatch.setattr(table.index.rows.index, "nearest", lambda d, a, c: (asked.append(len(d)), nearest(d, a, c))[1])
    assert best_edits(weights, directions, table, 4)[0][0] == 7
    assert asked == [2]


def test_a_long_question_of_equal_words_is_looked_up() -> None:
    """Each of 64 tokens has a small share of the weight; none of them is light."""
    keys, _ = language(300)
    table = indexed(keys, torch.arange(300), 300, covered=300)
    filler = F.normalize(torch.randn(62, R, generator=torch.Generator().manual_seed(9)), dim=-1)
    directions = torch.cat([filler, question_of(keys[7], seed=0)[1][:2]])
    exact = RouteKeys(keys, torch.arange(300), 300)
    weights = torch.ones(64)
    found, expected = (best_edits(weights, directions, where, 4)[0].tolist() for where in (table, exact))
    assert found == expected


def test_fewer_edits_than_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    keys, _ = language(20)
    monkeypatch.setattr(candidates, "_COMPARED", 3)
    table = indexed(keys[:10], torch.arange(10), 10, covered=10)
    weights, directions = question_of(keys[0], seed=0)
    assert len(best_edits(weights, directions, table, 8)[0]) == 3


def long_question_of(keys: torch.Tensor, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A question about the edit with these keys `[W, R]` in the midst of 40 light tokens of other matters."""
    generator = torch.Generator().manual_seed(seed)
    weights, directions = question_of(keys, seed)
    others = F.normalize(torch.randn(40, R, generator=generator), dim=-1)
    return torch.cat([weights, torch.full((40,), 0.2)]), torch.cat([directions, others])


@pytest.mark.parametrize("several_rows", [False, True])
def test_among_many_edits_the_heaviest_tokens_of_a_long_question_name_those_to_compare(several_rows: bool) -> None:
    count = 3000
    keys, _ = language(count)
    if several_rows:  # an edit takes two rows, and every seventh row belongs to no edit any more
        owners = torch.arange(count).repeat_interleave(2)[torch.randperm(2 * count)]
        rows = torch.stack([keys[:, : W // 2], keys[:, W // 2 :]], 1)
        keys_of_rows = torch.stack([rows[edit, (owners[:place] == edit).sum()] for place, edit in enumerate(owners)])
        owners = torch.cat([owners, torch.full((count,), count)])
        table = RouteKeys(torch.cat([keys_of_rows, keys_of_rows[:count]]), owners, count)
    else:
        table = RouteKeys(keys, None, count)
    shared = 0
    for edit in range(0, count, 100):
        weights, directions = long_question_of(keys[edit], seed=edit)
        similar = similarities(directions, table)
        expected = (weights @ similar).topk(4).indices
        found, own = best_edits(weights, directions, table, 4)
        torch.testing.assert_close(own, similar[:, found])
        assert (weights @ own).diff().le(1e-6).all()
        assert int(found[0]) == int(expected[0])
        shared += len({*found.tolist()} & {*expected.tolist()})
    assert shared >= 0.97 * 4 * len(range(0, count, 100))


@pytest.mark.parametrize("num_tokens", [17, 24, 32])
def test_tokens_without_weight_that_are_added_change_nothing(num_tokens: int) -> None:
    keys, _ = language(2500)
    table = RouteKeys(keys, None, 2500)
    for edit in range(0, 2500, 250):
        weights, directions = (part[:num_tokens] for part in long_question_of(keys[edit], seed=edit))
        similar = similarities(directions, table)
        expected = (weights @ similar).topk(8).indices
        found, own = best_edits(weights, directions, table, 8)
        assert found.tolist() == expected.tolist()
        torch.testing.assert_close(own, similar[:, expected])


def test_all_tokens_compare_with_few_edits(monkeypatch: pytest.MonkeyPatch) -> None:
    keys, _ = language(300)
    weights, directions = long_question_of(keys[7], seed=7)
    monkeypatch.setattr(candidates, "_best_by_the_heaviest", None)
    found, _ = best_edits(weights, directions, RouteKeys(keys, None, 300), 2)
    assert int(found[0]) == 7
