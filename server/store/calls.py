"""How the store's actor is called: a write in its envelope, a read, and how long each took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from incomes_server.auth.principal import SERVER, principal_var
from incomes_server.store import commands
from incomes_server.store.ray_call import call, find_actor
from sqlalchemy import Connection

from incomes_plugin.telemetry import request_id_var, span, traceparent

ACTOR_NAME = "edit-store"
Observe = Callable[[str, float], None]
"""Gets `write` or `read`, and the seconds that it took."""

P = ParamSpec("P")
T = TypeVar("T")


class StoreCalls:
    """Base of the store's typed calls."""

    def __init__(self, actor: Any, observe: Observe | None = None) -> None:
        self._actor = actor
        self._observe = observe

    @classmethod
    async def connect(cls, namespace: str = "incomes", observe: Observe | None = None) -> Self:
        """Find the actor that `start_ray` created.

        Args:
            observe: gets the duration of each write and each read.

        Raises:
            NotReady: there is none.
        """
        return cls(find_actor(ACTOR_NAME, namespace), observe)

    async def _write(self, command: commands.Command) -> Any:
        with self._timed("write"), span("store.write", command=type(command).__name__):
            return await call(self._actor.write.remote(commands.Sent(command, _origin()), traceparent()))

    async def _read(self, query: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        with self._timed("read"):
            found: T = await call(self._actor.read.remote(query, *args, **kwargs))
        return found

    write, read = _write, _read
    """Any command, any query: what has no method of its own."""

    @contextmanager
    def _timed(self, kind: str) -> Iterator[None]:
        start_s = time.monotonic()
        try:
            yield
        finally:
            if self._observe is not None:
                self._observe(kind, time.monotonic() - start_s)


def _origin() -> commands.Origin:
    """Of the HTTP request that is being answered, or the server itself."""
    principal = principal_var.get()
    return commands.Origin(principal, None if principal is SERVER else request_id_var.get() or None)
