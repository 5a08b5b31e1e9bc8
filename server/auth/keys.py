"""API keys: which project a bearer token belongs to. Pure, no HTTP. Keys are compared by digest and never printed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Self

from incomes_server.auth.principal import Principal, Scope

from incomes_plugin.errors import InvalidApiKey

DEFAULT_PROJECT = "default"
OPEN = Principal(DEFAULT_PROJECT, "open", frozenset(Scope))
"""Everybody, where no key is configured."""


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


class KeyRing:
    """All keys of the server. Without any key the server is open and every request belongs to `default`."""

    def __init__(self, keys: Iterable[ApiKey]) -> None:
        self._keys = {_digest(key.key): key for key in keys}

    @property
    def is_open(self) -> bool:
        """True when no key is configured."""
        return not self._keys

    def principal_of(self, authorization: str | None) -> Principal:
        """Who sends an `Authorization` header.

        Raises:
            InvalidApiKey: keys are configured, and the header holds none of them.
        """
        if self.is_open:
            return OPEN
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise InvalidApiKey("no API key: send the header `Authorization: Bearer <key>`")
        key = self._keys.get(_digest(token.strip()))
        if key is None:
            raise InvalidApiKey("the API key is not known to this server")
        return Principal(key.project, config_key_id(key.project, key.key), frozenset(Scope))


def _digest(key: str) -> bytes:
    """Keys are looked up by digest, so that the time of a lookup does not depend on how much of a key was right."""
    return hashlib.sha256(key.encode()).digest()


@cache
def config_key_id(project: str, key: str) -> str:
    """Id of a key of the settings, for the audit log. It is slow to compute (once a key), because such a key may be
    weak, and the id must not help to guess it."""
    digest = hashlib.scrypt(key.encode(), salt=project.encode(), n=1 << 13, r=8, p=1, dklen=12)
    return f"key_config_{digest.hex()}"
