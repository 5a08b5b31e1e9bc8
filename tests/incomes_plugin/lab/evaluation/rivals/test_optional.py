"""A library that is not there is the caller's to install, and the error says how."""

import pytest

from incomes_plugin.errors import InvalidValue
from incomes_plugin.lab.evaluation.rivals.optional import optional


def test_a_missing_library_is_named_with_the_command():
    with pytest.raises(InvalidValue, match=r"no_such_library.*pip install 'incomes\[eval\]'"):
        optional("no_such_library")


def test_what_the_extra_installs_is_there():
    assert optional("bm25s").BM25
    assert optional("peft").LoraConfig
