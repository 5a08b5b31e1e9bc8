"""API keys: which project and scopes a bearer token has. No HTTP, no SQL. Keys are compared by digest and never
printed."""

from __future__ import annotations

import asyncio
import hashlib
import math
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Self

from incomes_server.auth.principal import OPEN_KEY, Principal, Scope
from incomes_server.auth.quotas import Limits, ProjectQuotas, Quotas

from incomes_plugin.errors import InvalidApiKey, NotReady

DEFAULT_PROJECT = "default"
FRESH_S = 0.5
MADE_S = 0.05
"""Unknown keys make the keys be read this often at most."""
ANSWER_WITHIN_S = 10.0
NO_LIMITS = Limits()
OPEN = Principal(DEFAULT_PROJECT, OPEN_KEY, frozenset(Scope))
"""Everybody, where there never was a key."""


@dataclass(frozen=True)
class ApiKey:
    """One secret and the project (tenant) that it opens."""

    project: str
    key: str = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """`project:key`, or a bare key for the project `default`."""
        project, separator, key = text.strip().partition(":")
        if not separator:
            project, key = DEFAULT_PROJECT, project
        if not project or not key:
            raise ValueError("an API key is `project:key` or `key`, both parts not empty")
        return cls(project, key)

    def __str__(self) -> str:
        return f"{self.project}:***"


@dataclass(frozen=True)
class StoredKey:
    """A key of the database, which has its digest alone.

    Attributes:
        expires_at: set when the key was rotated: until then the old one works too.
        replaced_by: id of the key that came with the rotation.
    """

    id: str
    project: str
    name: str
    scopes: tuple[Scope, ...]
    digest: str = field(repr=False)
    created_at: int
    expires_at: int | None = None
    revoked_at: int | None = None
    replaced_by: str | None = None


@dataclass(frozen=True)
class Tenancy:
    """What the database knows of projects.

    Attributes:
        version: grows with each change.
        keys: those that are not revoked.
        had_keys: whether there ever was one.
        projects: those that were made by the API.
        limits: what an operator has set, by project.
    """

    version: int
    keys: tuple[StoredKey, ...] = ()
    had_keys: bool = False
    projects: frozenset[str] = frozenset()
    limits: Mapping[str, Limits] = field(default_factory=dict)


LoadTenancy = Callable[[int], Awaitable[Tenancy | None]]
"""Gets the version that the caller has; None = it is the newest."""


class KeyRing:
    """The keys of the settings, which may do all in their project, and those of the database.

    Where neither the settings nor the database ever had a key, the server is open and every request belongs to
    `default`. The database's keys are at most `FRESH_S` old when one of them is judged, so that a revoked one stops
    working on every server within a second.
    """

    def __init__(self, keys: Iterable[ApiKey], load: LoadTenancy | None = None) -> None:
        self._configured = {digest_of(key.key): key for key in keys}
        self._load = load
        self._stored: dict[str, StoredKey] = {}
        self._tenancy = Tenancy(0)
        self._read_at = -math.inf
        self._reading: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        """True when there never was a key."""
        return not self._configured and not self._tenancy.had_keys

    def quotas(self, default: Quotas, *, shared: bool) -> ProjectQuotas:
        """What each project may use, by the settings and by what an operator has set.

        Args:
            shared: projects share the pool equally.
        """
        return ProjectQuotas(default, self.count_projects if shared else None, self.limits_of)

    def limits_of(self, project: str) -> Limits:
        """What an operator has set for the project, as it was at the last reading."""
        return self._tenancy.limits.get(project, NO_LIMITS)

    def count_projects(self) -> int:
        """How many projects there are: those with a key in the settings, without any `default`, and those that were
        made by the API."""
        configured = {key.project for key in self._configured.values()} or {DEFAULT_PROJECT}
        return len(configured | self._tenancy.projects)

    async def principal_of(self, authorization: str | None) -> Principal:
        """Who sends an `Authorization` header.

        Raises:
            InvalidApiKey: there are keys, and the header holds none that works.
            NotReady: the database does not answer, so that nobody knows whether the key still works.
        """
        scheme, _, token = (authorization or "").partition(" ")
        digest = digest_of(token.strip()) if scheme.lower() == "bearer" and token.strip() else ""
        if (key := self._configured.get(digest)) is not None:
            self._begin_reading(FRESH_S)
            return Principal(key.project, config_key_id(key.project, key.key), frozenset(Scope))
        await self._refresh(FRESH_S)
        if self.is_open:
            return OPEN
        if not digest:
            raise InvalidApiKey("no API key: send the header `Authorization: Bearer <key>`")
        await self._look_again(digest, time.monotonic())
        stored = self._stored.get(digest)
        if stored is None or (stored.expires_at is not None and stored.expires_at <= time.time()):
            raise InvalidApiKey("the API key is not known to this server, or works no longer")
        return Principal(stored.project, stored.id, frozenset(stored.scopes))

    async def _look_again(self, digest: str, since: float) -> None:
        """An unknown key may have been made a moment ago: wait for a reading that begins after the request came."""
        while self._load is not None and digest not in self._stored and self._read_at < since:
            await asyncio.sleep(max(0.0, self._read_at + MADE_S - time.monotonic()))
            await self._refresh(MADE_S)

    async def _refresh(self, max_age_s: float) -> None:
        """Wait for a reading that is no older, on an open server too: since its last reading a first key may have been
        made, here or by another server, and the request after it must not be let in without one."""
        reading = self._begin_reading(max_age_s)
        if reading is None:
            return
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                await asyncio.shield(reading)
        except TimeoutError:
            raise NotReady(f"the edit store, which knows the keys, does not answer in {ANSWER_WITHIN_S:g} s") from None

    def _begin_reading(self, max_age_s: float) -> asyncio.Task[None] | None:
        """Read the database's keys and limits unless they were read a moment ago; one reading for all who ask."""
        if self._load is None or time.monotonic() - self._read_at < max_age_s:
            return None
        if self._reading is None:
            self._reading = asyncio.create_task(self._read(self._load))
            self._reading.add_done_callback(self._done)
        return self._reading

    async def _read(self, load: LoadTenancy) -> None:
        started = time.monotonic()
        found = await load(self._tenancy.version)
        if found is not None:
            self._tenancy, self._stored = found, {key.digest: key for key in found.keys}
        self._read_at = started

    def _done(self, task: asyncio.Task[None]) -> None:
        self._reading = None
        if not task.cancelled():
            task.exception()  # those who waited for it got it


def new_secret() -> str:
    """A key of 256 random bits; with so many, one round of SHA-256 is enough to keep it from being guessed."""
    return "inc_" + secrets.token_urlsafe(32)


def digest_of(key: str) -> str:
    """Keys are looked up by digest, so that the time of a lookup does not depend on how much of a key was right."""
    return hashlib.sha256(key.encode()).hexdigest()


@cache
def config_key_id(project: str, key: str) -> str:
    """Id of a key of the settings, for the audit log. It is slow to compute (once a key), because such a key may be
    weak, and the id must not help to guess it."""
    digest = hashlib.scrypt(key.encode(), salt=project.encode(), n=1 << 13, r=8, p=1, dklen=12)
    return f"key_config_{digest.hex()}"
