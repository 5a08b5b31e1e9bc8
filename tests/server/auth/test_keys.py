import pytest
from incomes_server.auth.keys import ApiKey, KeyRing

from incomes_plugin.errors import InvalidApiKey

RING = KeyRing([ApiKey.parse("acme:k1"), ApiKey.parse("k2")])


@pytest.mark.parametrize(("header", "project"), [("Bearer k1", "acme"), ("bearer k2", "default")])
def test_known_key(header, project):
    assert RING.principal_of(header).project == project


@pytest.mark.parametrize("header", [None, "", "k1", "Basic k1", "Bearer", "Bearer ", "Bearer k3", "Bearer acme:k1"])
def test_anything_else_is_refused(header):
    with pytest.raises(InvalidApiKey):
        RING.principal_of(header)


def test_open_without_keys():
    assert KeyRing([]).principal_of(None).project == "default"
    assert KeyRing([]).principal_of("Bearer whatever").project == "default"


@pytest.mark.parametrize("text", ["acme:", ":key", ""])
def test_malformed_key(text):
    with pytest.raises(ValueError, match="API key"):
        ApiKey.parse(text)
