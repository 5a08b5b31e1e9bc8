"""With what new gists are compared: the newest snapshot, others that are given, and those before them."""

from dataclasses import replace

import pytest

from incomes_plugin.pool import comparing
from incomes_plugin.pool.comparing import compare
from incomes_plugin.pool.snapshot import SnapshotDelta, SnapshotRef
from tests.incomes_plugin.pool.small import SmallPool, gist, pool_of

ALL = "abcdefgh"
"""As many as are compared closely: the maps of these tests are random, and rank nothing."""


def same_as(name, other, version=1):
    """An edit that says what another one says, word for word."""
    return replace(gist(other, 7), edit_id=name, version=version)


def committed(pool, *gists, edit_set="eset", version=1):
    ref = SnapshotRef(edit_set, version, f"{version:064x}", len(gists))
    super(SmallPool, pool).commit(SnapshotDelta(None, ref, tuple(gists)))


def duplicates(compared):
    return {each.edit for each in compared.found if (each.kind, each.score) == ("duplicate", 1.0)}


def test_it_is_compared_with_the_newest_snapshot_of_its_own_set():
    pool = pool_of()
    committed(pool, *(gist(name, 7) for name in ALL), version=3)
    committed(pool, gist("elsewhere", 7), edit_set="other")
    same, foreign = compare(pool, "eset", [same_as("new", "d"), same_as("z", "elsewhere")], [])
    assert (same.position, same.beside, duplicates(same)) == (3, (), {("d", 1)})
    assert (foreign.beside, duplicates(foreign)) == ((("new", 1),), set())


def test_an_engine_without_the_set_says_so():
    (alone,) = compare(pool_of(), "eset", [gist("new", 7)], [])
    assert (alone.position, alone.beside, alone.found) == (0, (), ())


def test_others_and_those_before_it_are_compared_too():
    first, second = same_as("first", "held"), same_as("second", "first's")
    told = compare(pool_of(), "eset", [first, second, same_as("third", "first's")], [gist("held", 7)])
    assert [each.beside for each in told] == [
        (("held", 1),), (("held", 1), ("first", 1)), (("held", 1), ("first", 1), ("second", 1))
    ]  # fmt: skip
    assert [duplicates(each) for each in told] == [{("held", 1)}, set(), {("second", 1)}]


def test_a_new_version_is_not_compared_with_its_former_one():
    pool = pool_of()
    committed(pool, gist("a", 7))
    (again,) = compare(pool, "eset", [same_as("a", "a", version=2)], [])
    assert again.found == ()


def test_edits_of_any_length_are_compared():
    pool = pool_of()
    committed(pool, gist("short", 1), gist("long", 200))
    told = compare(pool, "eset", [gist("one", 1), gist("many", 200)], [])
    assert [each.position for each in told] == [1, 1]


def test_one_that_cannot_be_compared_is_told_from_one_without_conflicts(monkeypatch):
    """A defect of the comparison: the edit is not taken for one that contradicts nothing."""

    def breaks(*_):
        raise RuntimeError("no memory")

    pool = pool_of()
    committed(pool, gist("a", 7))
    monkeypatch.setattr(comparing, "judge", breaks)
    assert compare(pool, "eset", [gist("new", 7)], []) == [None]


@pytest.mark.parametrize("index_from_edits", [1, 1 << 30])
def test_an_index_finds_the_same(index_from_edits):
    pool = pool_of(index_from_edits=index_from_edits)
    committed(pool, *(gist(f"e{n}", 7) for n in range(8)))
    (found,) = compare(pool, "eset", [same_as("new", "e5")], [])
    assert duplicates(found) == {("e5", 1)}
