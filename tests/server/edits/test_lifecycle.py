from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from incomes_server.edits import SETTLED, TRANSITIONS, WAITING, EditStatus, check_name, sources_of

from incomes_plugin.errors import InvalidValue

S = EditStatus


@given(st.data())
def test_every_walk_ends_and_only_model_changes_go_back(data):
    status, path = S.PENDING, [S.PENDING]
    while TRANSITIONS[status] and len(path) < 30:
        status = data.draw(st.sampled_from(sorted(TRANSITIONS[status])))
        path.append(status)
    for before, after in pairwise(path):
        assert after is not S.PENDING or before is S.READY
        assert before not in (S.RETIRED, S.SUPERSEDED) or after is S.ERASED


def test_sources_are_the_inverse_of_the_transitions():
    for status in S:
        assert {source for source in S if status in TRANSITIONS[source]} == sources_of(status)


def test_waiting_versions_are_those_the_compressor_may_settle():
    assert {S.PENDING, S.COMPRESSING} == WAITING
    assert set(S) == WAITING | SETTLED
    assert sources_of(S.FAILED) == WAITING


def test_whatever_lives_can_be_retired():
    assert sources_of(S.RETIRED) == set(S) - {S.RETIRED, S.SUPERSEDED, S.ERASED}
    assert sources_of(S.ERASED) == set(S) - {S.ERASED}


@pytest.mark.parametrize("name", ["default", "support kb", "Ünïcode", "x" * 128])
def test_good_names(name):
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", " padded", "two\nlines", "x" * 129, "eset_looks_like_an_id"])
def test_bad_names(name):
    with pytest.raises(InvalidValue):
        check_name(name)
