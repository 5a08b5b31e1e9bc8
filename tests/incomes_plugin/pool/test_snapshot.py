from functools import reduce

from hypothesis import given
from hypothesis import strategies as st

from incomes_plugin.pool.snapshot import EMPTY_DIGEST, SnapshotRef, add_to_digest

pairs = st.sets(st.tuples(st.text("abc", min_size=1, max_size=4), st.integers(1, 5)), max_size=12).map(sorted)


@given(pairs, st.randoms())
def test_the_digest_depends_on_the_content_alone(content, random):
    shuffled = random.sample(content, len(content))
    one_by_one = reduce(lambda head, pair: head.advance([pair], []), shuffled, SnapshotRef.empty("eset"))
    at_once = SnapshotRef.empty("eset").advance(content, [])
    assert (one_by_one.digest, one_by_one.num_edits) == (at_once.digest, at_once.num_edits)
    assert one_by_one.version == len(content)


@given(pairs, pairs)
def test_what_left_leaves_no_trace(stay, gone):
    gone = [pair for pair in gone if pair not in stay]
    head = SnapshotRef.empty("eset").advance(stay + gone, []).advance([], gone)
    assert (head.version, head.digest, head.num_edits) == (
        2,
        SnapshotRef.empty("eset").advance(stay, []).digest,
        len(stay),
    )


@given(pairs, pairs)
def test_other_content_has_another_digest(one, other):
    assert (
        SnapshotRef.empty("eset").advance(one, []).digest == SnapshotRef.empty("eset").advance(other, []).digest
    ) == (one == other)


def test_all_gone_is_the_empty_digest():
    assert SnapshotRef.empty("eset").advance([("a", 1)], []).advance([], [("a", 1)]).digest == EMPTY_DIGEST
    assert add_to_digest(EMPTY_DIGEST, "a", 1) != add_to_digest(EMPTY_DIGEST, "a", 2)
