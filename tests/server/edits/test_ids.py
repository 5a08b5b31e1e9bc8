import re

import pytest
from incomes_server.edits import IdPrefix, is_id, new_id


@pytest.mark.parametrize("prefix", IdPrefix)
def test_an_id_is_its_prefix_and_24_url_safe_characters(prefix):
    assert re.fullmatch(re.escape(prefix) + "[A-Za-z0-9]{24}", new_id(prefix))
    assert is_id(new_id(prefix), prefix)


def test_no_prefix_begins_another_one():
    assert not [(a, b) for a in IdPrefix for b in IdPrefix if a is not b and a.startswith(b)]


def test_ids_do_not_repeat():
    assert len({new_id(IdPrefix.EDIT) for _ in range(10_000)}) == 10_000
