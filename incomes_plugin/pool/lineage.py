"""Lineage: the snapshots of an edit set that somebody may still read, so that the pool knows when a gist is gone.

Snapshots follow each other. A gist is seen by one after the other from the commit that added it to the one that removed
it, so what a snapshot alone sees is known from its neighbours, and no commit counts all gists. Immutable.
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
        left: charges of the gists that it sees and the next living snapshot does not.
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
    """See the module docstring. Members are told apart by their tables."""

    living: tuple[_Member, ...] = ()

    def with_next(self, table: RouteTable, latest: int, left: tuple[Charge, ...]) -> Lineage:
        """The lineage with one more snapshot.

        Args:
            latest: serial number of the newest gist in the pool.
            left: charges of the gists that its parent sees and it does not.
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
