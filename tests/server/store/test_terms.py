"""Servers of one store agree on what one admits and another has to serve."""

import base64

import pytest
from incomes_server.settings import load_settings
from incomes_server.store.terms import StoreTerms

from incomes_plugin.errors import InvalidValue

POSTGRES = "postgresql+psycopg://incomes:first-password@db/incomes"


def terms(**settings):
    found = load_settings(None, **{"ray_address": "127.0.0.1:6379", "edit_store": POSTGRES} | settings).settings
    return StoreTerms.of(found, found.masters())


def key(byte):
    return base64.b64encode(bytes([byte]) * 32).decode()


@pytest.mark.parametrize(
    ("name", "ours", "theirs"),
    [
        ("pool_bytes", "1GiB", "2GiB"),
        ("queue_limit", 1000, 2000),
        ("default_edit_set", "default", "other"),
        ("keep_history_s", 3600, 86_400),
        ("edit_store", POSTGRES, POSTGRES + "2"),
        ("encryption_key", key(1), key(2)),
    ],
)
def test_a_difference_is_named(name, ours, theirs):
    with pytest.raises(InvalidValue, match=rf"^{name} is .* here, and .* at the edit store") as refused:
        terms(**{name: theirs}).check(terms(**{name: ours}))
    assert refused.value.param == name
    for secret in ("first-password", key(1), key(2)):
        assert secret not in refused.value.message


def test_a_password_may_change_and_one_that_joins_needs_no_database():
    terms().check(terms(edit_store=POSTGRES.replace("first", "second")))
    terms().check(terms(join=True, edit_store="sqlite:///unused.db"))


def test_a_compressor_with_another_memory_is_refused_before_it_stalls():
    """`incomes compress` only joins. With less memory it could not hold what new edits are compared with."""
    with pytest.raises(InvalidValue, match=r"^pool_bytes is 1024 here, and 2048 at the edit store"):
        terms(pool_bytes=2048).check(terms(join=True, pool_bytes=1024))


def test_sqlite_is_refused_in_a_cluster():
    with pytest.raises(InvalidValue, match="`edit_store` in SQLite, a file of one machine; give the URL") as refused:
        terms(edit_store="sqlite:///edits.db")
    assert refused.value.param == "ray_address"


def test_joining_needs_an_address():
    with pytest.raises(InvalidValue, match="`join` needs the address"):
        load_settings(None, join=True)


def test_an_engine_of_a_cluster_has_a_name_of_its_own():
    where = {"ray_address": "127.0.0.1:6379", "join": True}
    names = {load_settings(None, port=port, **where).settings.engine_name for port in (8000, 8001)}
    assert len(names) == 2
    assert load_settings(None, replica_name="mine", **where).settings.engine_name == "mine"
    assert load_settings(None).settings.engine_name == "replica-0"
