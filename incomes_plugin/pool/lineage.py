"""Lineage: the snapshots of an edit set that somebody may still read. It tells the pool when a gist can be freed.

Snapshots form a sequence, and a gist belongs to an unbroken stretch of it: from the commit that added it to the commit
that removed it. So the neighbours of a snapshot tell which gists belong to it alone, and no commit has to count all
gists.
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
        left: charges of the gists that belong to it and not to the next living snapshot.
    """

    table: RouteTable
    latest: int
    left: list[Charge] = field(default_factory=list)


@dataclass(eq=False)
class Lineage:
    """See the module docstring. A member is identified by its table."""

    _living: list[_Member] = field(default_factory=list)

    def append(self, table: RouteTable, latest: int, left: list[Charge]) -> None:
        """The next snapshot.

        Args:
            latest: serial number of the newest gist in the pool.
            left: charges of the gists that belong to its parent and not to it.
        """
        member = _Member(table, latest)
        if self._living:
            self._living[-1].left = left
        self._living.append(member)

    def remove(self, table: RouteTable) -> list[Charge]:
        """Remove a snapshot that nobody reads any more; returns the charges of the gists that belonged to it alone."""
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
