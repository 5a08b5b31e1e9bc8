"""Who sends a request: project, key and scopes. Made by the key ring, carried beside each write into the audit log."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum

OPEN_KEY = "open"
"""Id of the key of everybody, where there never was a key."""


class Scope(StrEnum):
    """What a key may do; `admin` includes all others."""

    CHAT = "chat"
    READ = "edits:read"
    WRITE = "edits:write"
    ACTIVATE = "edits:activate"
    ADMIN = "admin"


@dataclass(frozen=True)
class Principal:
    """Who asks.

    Attributes:
        project: tenant of the key; empty for the server itself, which works for all of them.
        key_id: names the key and does not tell it; `open` where no key is configured, `server` for the server itself.
    """

    project: str
    key_id: str
    scopes: frozenset[Scope]

    def may(self, scope: Scope) -> bool:
        """Whether the key has the scope."""
        return scope in self.scopes or Scope.ADMIN in self.scopes


SERVER = Principal("", "server", frozenset(Scope))
"""The server's own work: outcomes of compression, what a start mends."""

principal_var: ContextVar[Principal] = ContextVar("principal", default=SERVER)
"""Of the request that is being answered; set by `AuthMiddleware`, read by `StoreClient` for each write."""
