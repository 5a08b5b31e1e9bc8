"""API keys: which project a bearer token belongs to. Pure, no HTTP. Keys are compared by digest and never printed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

from incomes_plugin.errors import InvalidApiKey

DEFAULT_PROJECT = "default"


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
        self._projects = {_digest(key.key): key.project for key in keys}

    @property
    def is_open(self) -> bool:
        """True when no key is configured."""
        return not self._projects

    def project_of(self, authorization: str | None) -> str:
        """Project of an `Authorization` header.

        Raises:
            InvalidApiKey: keys are configured, and the header holds none of them.
        """
        if self.is_open:
            return DEFAULT_PROJECT
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise InvalidApiKey("no API key: send the header `Authorization: Bearer <key>`")
        project = self._projects.get(_digest(token.strip()))
        if project is None:
            raise InvalidApiKey("the API key is not known to this server")
        return project


def _digest(key: str) -> bytes:
    """Keys are looked up by digest, so that the time of a lookup does not depend on how much of a key was right."""
    return hashlib.sha256(key.encode()).digest()
