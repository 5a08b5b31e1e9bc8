"""What `incomes key` says of keys that it cannot show, or that work no longer."""

import time

import pytest
import typer
from incomes_server.api.admin.tenancy_schemas import ApiKeyObject
from incomes_server.cli.keys import _show, _state

KEY = ApiKeyObject(
    id="key_1", project="acme", name="bot", scopes=["chat"], created_at=1, expires_at=None, revoked_at=None,
    replaced_by=None,
)  # fmt: skip


def test_a_key_whose_secret_is_lost_is_an_error_and_not_printed_as_none(capsys):
    with pytest.raises(typer.Exit) as caught:
        _show(KEY, as_json=False)
    said = capsys.readouterr()
    assert caught.value.exit_code == 1
    assert said.out == ""
    assert "key_1" in said.err
    _show(KEY.model_copy(update={"secret": "inc_x"}), as_json=False)
    assert capsys.readouterr().out == "inc_x\n"


def test_the_state_of_a_key():
    now = int(time.time())
    assert _state(KEY) == "works"
    assert _state(KEY.model_copy(update={"expires_at": now + 60})) == f"works until {now + 60}"
    assert _state(KEY.model_copy(update={"expires_at": now - 60})) == "expired"
    assert _state(KEY.model_copy(update={"expires_at": now + 60, "revoked_at": now})) == "revoked"
