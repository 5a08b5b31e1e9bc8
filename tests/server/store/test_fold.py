from hypothesis import given
from hypothesis import strategies as st
from incomes_server.store.fold import Fold

PAIRS = [("a", 1), ("a", 2), ("b", 1)]


@given(st.sets(st.sampled_from(PAIRS)), st.lists(st.sampled_from(PAIRS), max_size=12))
def test_a_fold_takes_the_start_to_the_end(start, toggles):
    present, fold = set(start), Fold()
    for pair in toggles:  # each one leaves if it is there and joins if it is not
        fold.apply(pair, is_add=pair not in present, num_bytes=10)
        present ^= {pair}
    added, removed = fold.added(), fold.removed()
    assert (start - set(removed)) | set(added) == present
    assert set(removed) <= start
    assert fold.num_bytes == 10 * len(added)


def test_added_and_removed_is_nothing():
    fold = Fold()
    fold.apply(("a", 1), is_add=True, num_bytes=5)
    fold.apply(("a", 1), is_add=False, num_bytes=5)
    assert (fold.added(), fold.removed(), fold.num_bytes) == ([], [], 0)


def test_removed_and_added_is_both_because_the_gist_may_be_another():
    fold = Fold()
    fold.apply(("a", 1), is_add=False, num_bytes=5)
    fold.apply(("a", 1), is_add=True, num_bytes=7)
    assert (fold.added(), fold.removed(), fold.num_bytes) == ([("a", 1)], [("a", 1)], 7)
