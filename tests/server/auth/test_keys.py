"""Which project and scopes a header has: by the settings, by the database, and how soon a change of it counts."""

import asyncio
import time

import pytest
from incomes_server.auth import keys
from incomes_server.auth.keys import ApiKey, KeyRing, StoredKey, Tenancy, config_key_id, digest_of, new_secret
from incomes_server.auth.principal import Scope

from incomes_plugin.errors import InvalidApiKey, NotReady

RING = KeyRing([ApiKey.parse("acme:k1"), ApiKey.parse("k2")])


class Database:
    """Keys that change, as the store tells of them."""

    def __init__(self):
        self.content = Tenancy(0)
        self.reads = 0
        self.error = None

    async def load(self, known):
        self.reads += 1
        await asyncio.sleep(0.01)
        if self.error is not None:
            raise self.error
        return None if self.content.version == known else self.content

    def put(self, *stored):
        self.content = Tenancy(self.content.version + 1, stored, had_keys=True)


def stored(secret, expires_at=None):
    return StoredKey("key_1", "zen", "bot", (Scope.CHAT,), digest_of(secret), 0, expires_at)


async def ask_for_ever(ring, header):
    while True:
        await ring.principal_of(header)
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(("header", "project"), [("Bearer k1", "acme"), ("bearer k2", "default")])
async def test_known_key(header, project):
    principal = await RING.principal_of(header)
    assert (principal.project, principal.scopes) == (project, frozenset(Scope))
    assert principal.key_id == config_key_id(project, header.split()[1])


@pytest.mark.parametrize("header", [None, "", "k1", "Basic k1", "Bearer", "Bearer ", "Bearer k3", "Bearer acme:k1"])
async def test_anything_else_is_refused(header):
    with pytest.raises(InvalidApiKey):
        await RING.principal_of(header)


async def test_open_without_keys():
    assert (await KeyRing([]).principal_of(None)).project == "default"
    assert (await KeyRing([]).principal_of("Bearer whatever")).project == "default"


async def test_a_key_of_the_database_works_at_once_and_ends_within_a_second():
    database, secret = Database(), new_secret()
    ring = KeyRing([ApiKey.parse("acme:k1")], database.load)
    with pytest.raises(InvalidApiKey):
        await ring.principal_of(f"Bearer {secret}")
    database.put(stored(secret))
    principal = await ring.principal_of(f"Bearer {secret}")
    assert (principal.project, principal.key_id, principal.may(Scope.CHAT)) == ("zen", "key_1", True)
    assert not any(principal.may(scope) for scope in set(Scope) - {Scope.CHAT})
    database.put()
    revoked = time.monotonic()
    with pytest.raises(InvalidApiKey):
        await ask_for_ever(ring, f"Bearer {secret}")
    assert time.monotonic() - revoked < 1


async def test_many_requests_read_the_keys_seldom():
    database, secret = Database(), new_secret()
    database.put(stored(secret))
    ring = KeyRing([], database.load)
    await asyncio.gather(*(ring.principal_of(f"Bearer {secret}") for _ in range(500)))
    assert database.reads == 1
    results = await asyncio.gather(*(ring.principal_of("Bearer wrong") for _ in range(500)), return_exceptions=True)
    assert {type(result) for result in results} == {InvalidApiKey}
    assert database.reads <= 3


async def test_a_rotated_key_ends_with_its_grace(monkeypatch):
    database, secret = Database(), new_secret()
    database.put(stored(secret, expires_at=1000))
    ring = KeyRing([], database.load)
    monkeypatch.setattr(keys.time, "time", lambda: 999.0)
    assert (await ring.principal_of(f"Bearer {secret}")).project == "zen"
    monkeypatch.setattr(keys.time, "time", lambda: 1000.0)
    with pytest.raises(InvalidApiKey):
        await ring.principal_of(f"Bearer {secret}")


async def test_an_open_server_closes_with_the_first_key_and_stays_closed():
    database = Database()
    ring = KeyRing([], database.load)
    assert (await ring.principal_of(None)).key_id == "open"
    database.put(stored(new_secret()))
    with pytest.raises(InvalidApiKey):
        await asyncio.wait_for(ask_for_ever(ring, None), 1)
    database.put()
    await asyncio.sleep(keys.FRESH_S)
    with pytest.raises(InvalidApiKey):
        await ring.principal_of(None)
    assert not ring.is_open, "no key is left, and the server does not open again"


async def test_the_first_request_after_a_pause_does_not_find_the_door_open():
    """Another server, or this one, has made the first key meanwhile: none gets in on what was read long ago."""
    database = Database()
    ring = KeyRing([], database.load)
    assert (await ring.principal_of(None)).key_id == "open"
    database.put(stored(new_secret()))
    await asyncio.sleep(keys.FRESH_S)
    results = await asyncio.gather(*(ring.principal_of(None) for _ in range(5)), return_exceptions=True)
    assert {type(result) for result in results} == {InvalidApiKey}


async def test_an_open_server_that_cannot_ask_for_keys_lets_nobody_in():
    database = Database()
    ring = KeyRing([], database.load)
    await ring.principal_of(None)
    database.error = NotReady("the store is gone")
    await asyncio.sleep(keys.FRESH_S)
    with pytest.raises(NotReady):
        await ring.principal_of(None)


async def test_the_project_of_an_open_server_counts_beside_those_that_were_made():
    database = Database()
    database.content = Tenancy(1, projects=frozenset({"acme"}))
    ring = KeyRing([], database.load)
    assert ring.count_projects() == 1
    await ring.principal_of(None)
    assert ring.count_projects() == 2, "acme must not get the whole pool as its share: `default` has edits too"


async def test_without_the_store_only_keys_of_the_settings_work():
    database, secret = Database(), new_secret()
    database.put(stored(secret))
    ring = KeyRing([ApiKey.parse("acme:k1")], database.load)
    await ring.principal_of(f"Bearer {secret}")
    database.error = NotReady("the store is gone")
    await asyncio.sleep(keys.FRESH_S)
    with pytest.raises(NotReady):
        await ring.principal_of(f"Bearer {secret}")
    assert (await ring.principal_of("Bearer k1")).project == "acme"


@pytest.mark.parametrize("text", ["acme:", ":key", ""])
def test_malformed_key(text):
    with pytest.raises(ValueError, match="API key"):
        ApiKey.parse(text)
