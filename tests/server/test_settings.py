"""Layers, origins and refusals of the settings."""

import base64
import pickle

import pytest
from incomes_server.auth.master_key import MasterSource
from incomes_server.settings import Settings, is_loopback, load_settings

from incomes_plugin.errors import InvalidValue, NotReady


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    import os

    for name in [n for n in os.environ if n.startswith("INCOMES_")]:
        monkeypatch.delenv(name)


def write(tmp_path, text):
    path = tmp_path / "incomes.yaml"
    path.write_text(text)
    return path


def test_cli_beats_env_beats_file_beats_default(tmp_path, monkeypatch):
    config = write(tmp_path, "port: 1001\nadmin_port: 1002\nqueue_limit: 300\n")
    monkeypatch.setenv("INCOMES_PORT", "2001")
    monkeypatch.setenv("INCOMES_ADMIN_PORT", "2002")
    loaded = load_settings(config, port=3001, host=None)
    settings = loaded.settings
    assert (settings.port, settings.admin_port, settings.queue_limit, settings.host) == (3001, 2002, 300, "127.0.0.1")
    found = {name: loaded.origins[name] for name in ("port", "admin_port", "queue_limit", "host")}
    assert found == {"port": "cli", "admin_port": "env", "queue_limit": "file", "host": "default"}


def test_unknown_key_in_the_file_is_an_error(tmp_path):
    with pytest.raises(InvalidValue, match=r"prot.*unknown setting") as caught:
        load_settings(write(tmp_path, "prot: 8000\n"))
    assert caught.value.param == "prot"


@pytest.mark.parametrize("text", ["- a list\n", "a: [\n"])
def test_broken_file(tmp_path, text):
    with pytest.raises(InvalidValue):
        load_settings(write(tmp_path, text))


def test_secret_from_a_file(tmp_path, monkeypatch):
    secret = tmp_path / "keys"
    secret.write_text("acme:k1\nzen:k2\n")
    monkeypatch.setenv("INCOMES_API_KEYS_FILE", str(secret))
    keys = load_settings().settings.api_keys
    assert [(k.project, k.key) for k in keys] == [("acme", "k1"), ("zen", "k2")]


def test_keys_from_the_environment_and_the_command_line(monkeypatch):
    monkeypatch.setenv("INCOMES_API_KEYS", "bare,acme:k1")
    assert [k.project for k in load_settings().settings.api_keys] == ["default", "acme"]
    assert [k.project for k in load_settings(api_keys=("zen:k",)).settings.api_keys] == ["zen"]


def test_a_key_is_never_printed():
    settings = load_settings(api_keys=("acme:topsecret",)).settings
    assert "topsecret" not in repr(settings)
    assert "topsecret" not in str(settings.api_keys[0])


@pytest.mark.parametrize("field", ["host", "admin_host"])
def test_a_reachable_address_needs_a_key(field):
    with pytest.raises(InvalidValue, match="API key"):
        load_settings(**{field: "0.0.0.0"})
    assert load_settings(**{field: "0.0.0.0"}, api_keys=("k",)).settings


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", "localhost"])
def test_addresses_of_this_machine_only(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "::ffff:10.0.0.1", "example"])
def test_addresses_others_can_reach(host):
    assert not is_loopback(host)


def test_wrong_value_names_field_and_origin(monkeypatch):
    monkeypatch.setenv("INCOMES_PORT", "http")
    with pytest.raises(InvalidValue, match=r"port \(env\)"):
        load_settings()


@pytest.mark.parametrize(
    ("given", "expected"), [("512MiB", 512 << 20), ("4GiB", 4 << 30), ("1GB", 10**9), ("1000", 1000), (2048, 2048)]
)
def test_pool_bytes_may_have_a_unit(given, expected):
    found = load_settings(pool_bytes=given).settings.pool_bytes
    assert (found, type(found)) == (expected, int)


@pytest.mark.parametrize("given", ["0", "-1GiB", "much", "4GiBB"])
def test_pool_bytes_must_be_a_size(given):
    with pytest.raises(InvalidValue, match=r"pool_bytes \(cli\)"):
        load_settings(pool_bytes=given)


def test_the_default_of_index_from_edits_is_the_pools():
    from incomes_plugin.pool.indexing import INDEX_FROM_EDITS

    assert load_settings(None).settings.index_from_edits == INDEX_FROM_EDITS


def test_queue_must_hold_an_import_batch():
    with pytest.raises(InvalidValue, match="import_batch"):
        load_settings(queue_limit=10, import_batch=100)


def test_one_key_opens_one_project():
    with pytest.raises(InvalidValue, match="one key for two projects, a and b"):
        load_settings(api_keys=("a:k", "b:k"))
    assert len(load_settings(api_keys=("a:k", "a:k2", "b:k3")).settings.api_keys) == 3


def test_origins_come_with_commas(monkeypatch):
    monkeypatch.setenv("INCOMES_CORS_ORIGINS", "https://a.example, https://b.example")
    assert load_settings().settings.cors_origins == ("https://a.example", "https://b.example")


def test_a_secret_file_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("INCOMES_EDIT_STORE_FILE", str(tmp_path / "gone"))
    with pytest.raises(InvalidValue, match=r"INCOMES_EDIT_STORE_FILE names.*gone") as caught:
        load_settings()
    assert caught.value.param == "edit_store"


@pytest.mark.parametrize(
    ("given", "operator"),
    [
        ({}, "default"),
        ({"api_keys": "k"}, "default"),
        ({"api_keys": "ops:k"}, "ops"),
        ({"api_keys": "acme:k1,zen:k2"}, None),
        ({"api_keys": "acme:k1,zen:k2", "operator_project": "ops"}, "ops"),
    ],
)
def test_who_may_act_for_other_projects(given, operator):
    """Of several tenants with a configured key none is chosen by chance."""
    assert Settings(**given).operator == operator


def test_master_keys_come_from_a_command_too(tmp_path):
    """The hook for a key management service; what it prints is in no message."""
    key = base64.b64encode(bytes(range(32))).decode()
    good = tmp_path / "kms"
    good.write_text(f"#!/bin/sh\necho {key}\n")
    good.chmod(0o700)
    settings = Settings(encryption_key_command=str(good))
    assert [master.key for master in settings.masters()] == [bytes(range(32))]
    assert settings.is_encrypted
    assert settings.master_source().read() == settings.masters()
    assert not Settings().is_encrypted
    assert Settings().master_source() is None
    for command in ("/bin/false", "/no/such/command", "echo secret-material", "true"):
        with pytest.raises(NotReady, match="gave no master key") as refused:
            Settings(encryption_key_command=command).masters()
        assert "secret-material" not in refused.value.message


def test_master_keys_of_the_environment_are_not_shown(monkeypatch, tmp_path):
    key = base64.b64encode(bytes(range(32))).decode()
    path = tmp_path / "master.key"
    path.write_text(key + "\n")
    monkeypatch.setenv("INCOMES_ENCRYPTION_KEY_FILE", str(path))
    settings = load_settings().settings
    source = settings.master_source()
    assert (source, source.read()) == (MasterSource(path), settings.masters())
    assert bytes(range(32)) not in pickle.dumps(source)
    assert settings.masters()[0].key == bytes(range(32))
    assert key not in repr(settings)
    assert "\\x01" not in repr(settings)
    path.write_text("another")
    with pytest.raises(NotReady, match="cannot be read"):
        source.read()
    monkeypatch.setenv("INCOMES_ENCRYPTION_KEY", "c2hvcnQ=")
    monkeypatch.delenv("INCOMES_ENCRYPTION_KEY_FILE")
    with pytest.raises(InvalidValue, match="openssl rand") as refused:
        load_settings()
    assert "c2hvcnQ" not in refused.value.message
