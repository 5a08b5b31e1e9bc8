"""Lineage: the snapshots of an edit set that somebody may still read. It tells the pool when a gist can be freed.

Snapshots form a sequence, and a gist belongs to an unbroken stretch of it: from the commit that added it to the commit
that removed it. So the neighbours of a snapshot tell which gists belong to it alone, and no commit has to count all
gists. A lineage is immutable.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from incomes_plugin.pool.table import Charge, RouteTable


@dataclass(frozen=True, eq=False)
class _Member:
    """A living snapshot.

    Attributes:
        table: of the snapshot.
        latest: serial number of the newest gist in the pool when it was made.
        left: charges of the gists that belong to it and not to the next living snapshot.
    """

    table: RouteTable
    latest: int
    left: tuple[Charge, ...] = ()


@dataclass(frozen=True, eq=False)
class Gone:
    """What goes with a snapshot.

    Attributes:
        charges: of the gists that only it saw.
        arena_bytes: of its arena, if no other snapshot has it.
    """

    charges: tuple[Charge, ...]
    arena_bytes: int


@dataclass(frozen=True, eq=False)
class Lineage:
    """See the module docstring. A member is identified by its table."""

    living: tuple[_Member, ...] = ()

    def with_next(self, table: RouteTable, latest: int, left: tuple[Charge, ...]) -> Lineage:
        """The lineage with one more snapshot.

        Args:
            latest: serial number of the newest gist in the pool.
            left: charges of the gists that belong to its parent and not to it.
        """
        before = self.living
        if before:
            before = (*before[:-1], replace(before[-1], left=left))
        return Lineage((*before, _Member(table, latest)))

    def without(self, table: RouteTable) -> tuple[Lineage, Gone]:
        """The lineage without a snapshot that nobody reads any more, and what goes with it."""
        place = next(i for i, member in enumerate(self.living) if member.table is table)
        gone, before, after = self.living[place], self.living[:place], self.living[place + 1 :]
        shared = any(member.table.arena is table.arena for member in (*before, *after))
        leaving = gone.left if after else tuple(table.charges)
        if before:
            latest = before[-1].latest
            if after:
                kept = (charge for charge in leaving if charge.serial <= latest)
                before = (*before[:-1], replace(before[-1], left=(*before[-1].left, *kept)))
            leaving = tuple(charge for charge in leaving if charge.serial > latest)
        return Lineage((*before, *after)), Gone(leaving, 0 if shared else table.arena.nbytes)
