"""Lineage: the snapshots of an edit set that somebody may still read, so that the pool knows when a gist is gone.

Snapshots follow each other. A gist is seen by one after the other from the commit that added it to the one that removed
it, so what a snapshot alone sees is known from its neighbours, and no commit counts all gists.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from incomes_plugin.pool.table import Charge, RouteTable


@dataclass
class _Member:
    """A living snapshot.

    Attributes:
        table: of the snapshot.
        latest: serial number of the newest gist in the pool when it was made.
        left: charges of the gists that it sees and the next living snapshot does not.
    """

    table: RouteTable
    latest: int
    left: list[Charge] = field(default_factory=list)


@dataclass(eq=False)
class Lineage:
    """See the module docstring. Members are told apart by their tables."""

    _living: list[_Member] = field(default_factory=list)

    def append(self, table: RouteTable, latest: int, left: list[Charge]) -> None:
        """The next snapshot.

        Args:
            latest: serial number of the newest gist in the pool.
            left: charges of the gists that its parent sees and it does not.
        """
        member = _Member(table, latest)
        if self._living:
            self._living[-1].left = left
        self._living.append(member)

    def remove(self, table: RouteTable) -> list[Charge]:
        """A snapshot that nobody reads any more; returns the charges of the gists that only it saw."""
        place = next(i for i, member in enumerate(self._living) if member.table is table)
        gone = self._living.pop(place)
        is_last = place == len(self._living)
        leaving = table.charges if is_last else gone.left
        if not place:
            return leaving
        before = self._living[place - 1]
        if not is_last:
            before.left = before.left + [charge for charge in leaving if charge.serial <= before.latest]
        return [charge for charge in leaving if charge.serial > before.latest]
