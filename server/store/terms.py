"""What all servers of one store must agree on, so that what one of them admits is served by every other.

The first server's terms come with the actor's creation; another server compares its own before it joins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Self

from incomes_server.auth.master_key import MasterKey
from incomes_server.settings import Settings, without_password
from sqlalchemy import make_url

from incomes_plugin.errors import InvalidValue

SHARED = ("pool_bytes", "queue_limit", "default_edit_set", "keep_history_s")


@dataclass(frozen=True)
class StoreTerms:
    """Values as text, by the name of their setting; `incomes` is the version of the product. No secrets: of the
    database there is no password, of the master key its id."""

    values: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, settings: Settings, masters: Sequence[MasterKey]) -> Self:
        """The terms that a server of these settings needs."""
        values = {"incomes": version("incomes")} | {name: str(getattr(settings, name)) for name in SHARED}
        if not settings.join:  # one that joins has no need of them: the store's actor has them
            values["edit_store"] = make_url(settings.edit_store).set(password=None).render_as_string()
            values["gist_storage"] = without_password(settings.gist_storage or "none")
            values["encryption_key"] = ", ".join(master.id for master in masters) or "none"
        return cls(tuple(values.items()))

    def check(self, asked: StoreTerms) -> None:
        """Called on the terms of the running store, with those of a server that joins.

        Raises:
            InvalidValue: names the first setting that differs, and both values.
        """
        have = dict(self.values)
        for name, value in asked.values:
            if have.get(name, value) != value:
                raise InvalidValue(
                    f"{name} is {value} here, and {have[name]} at the edit store of the cluster: give all servers of a "
                    "cluster the same, or end all of them before a change",
                    param=name,
                )


ANY_TERMS = StoreTerms(())
