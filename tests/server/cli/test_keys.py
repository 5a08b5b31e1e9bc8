"""What `incomes key` says of keys that it cannot show, or that work no longer."""

import time

import pytest
import typer
from incomes_server.cli.keys import _segment, _show, _state

KEY = {"id": "key_1", "project": "acme", "name": "bot", "scopes": ["chat"], "revoked_at": None, "expires_at": None}


def test_a_key_whose_secret_is_lost_is_an_error_and_not_printed_as_none(capsys):
    with pytest.raises(typer.Exit) as caught:
        _show({**KEY, "secret": None}, as_json=False)
    said = capsys.readouterr()
    assert caught.value.exit_code == 1
    assert said.out == ""
    assert "key_1" in said.err
    _show({**KEY, "secret": "inc_x"}, as_json=False)
    assert capsys.readouterr().out == "inc_x\n"


def test_the_state_of_a_key():
    now = int(time.time())
    assert _state(KEY) == "works"
    assert _state({**KEY, "expires_at": now + 60}) == f"works until {now + 60}"
    assert _state({**KEY, "expires_at": now - 60}) == "expired"
    assert _state({**KEY, "expires_at": now + 60, "revoked_at": now}) == "revoked"


def test_a_name_stays_one_segment_of_the_path():
    assert _segment("../projects?project=zen") == "..%2Fprojects%3Fproject%3Dzen"
