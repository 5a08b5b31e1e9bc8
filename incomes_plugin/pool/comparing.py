"""Compares new gists with the edits of their set: those of its newest snapshot, others that are given, and one another.
Facts are compared with facts, and verbatim edits, whose gists say what they are found by, with verbatim edits.

in: gists that were just captured; out: for each what it was compared with, and which of these it conflicts with
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from incomes_plugin.gist.edit import Compared, EditKey, FoundConflict
from incomes_plugin.gist.types import Gist
from incomes_plugin.pool.gists import GistPool, PooledSnapshot
from incomes_plugin.pool.table import route_rows
from incomes_plugin.selection.conflicts import CANDIDATES, Sought, judge, nearest
from incomes_plugin.selection.routing import RouteKeys

logger = logging.getLogger("incomes.pool")


@dataclass(frozen=True)
class _Edits:
    """Edits that new ones are compared with, and what routing needs of them."""

    keys: RouteKeys
    edits: Sequence[EditKey]
    gists: Sequence[Gist]

    @classmethod
    def at(cls, snapshot: PooledSnapshot) -> _Edits:
        """Those of a snapshot."""
        return cls(snapshot.table.keys, snapshot.table.edits, snapshot.table.gists)

    @classmethod
    def of(cls, pool: GistPool, gists: Sequence[Gist]) -> _Edits:
        """These."""
        parts = [route_rows(pool.adapter.router, gist) for gist in gists]
        owners = torch.cat([torch.full((len(part),), number) for number, part in enumerate(parts)])
        keys = RouteKeys(torch.cat(parts), owners.to(parts[0].device), len(gists))
        return cls(keys, [gist.edit for gist in gists], gists)


@torch.inference_mode()
def compare(pool: GistPool, edit_set: str, new: Sequence[Gist], others: Sequence[Gist]) -> list[Compared | None]:
    """One answer for each new gist; None for all of them where they could not be compared.

    Args:
        others: further edits of the set that the newest snapshot does not have.
    """
    snapshot = pool.newest(edit_set)
    position = 0 if snapshot is None else snapshot.version
    told: list[Compared | None] = [None] * len(new)
    try:
        for number, found in enumerate(_found(pool, snapshot, new, others)):
            beside = tuple(gist.edit for gist in [*others, *new[:number]])
            told[number] = Compared(position, beside, tuple(found))
    except (RuntimeError, ValueError, MemoryError):
        logger.exception("new edits of %s could not be compared with others", edit_set)
        return [None] * len(new)
    return told


def _found(
    pool: GistPool, snapshot: PooledSnapshot | None, new: Sequence[Gist], others: Sequence[Gist]
) -> Iterator[list[FoundConflict]]:
    """For each new gist what it is in conflict with in the snapshot, among the others and among those before it."""
    if not new:
        return
    net, router, verifier = pool.adapter.judge, pool.adapter.router, pool.adapter.verifier
    features = [gist.features.unpack(router.key.weight.device) for gist in new]
    sought = [Sought.of(router, each) for each in features]
    beside = _Edits.of(pool, [*others, *new])
    besides = nearest(sought, beside.keys, CANDIDATES + len(new))
    served = None if snapshot is None or not snapshot.num_edits else _Edits.at(snapshot)
    rows = nearest(sought, served.keys, CANDIDATES + 1) if served else [[] for _ in new]
    for number, gist in enumerate(new):
        before = [row for row in besides[number] if row < len(others) + number]
        near = [(beside, row) for row in before[:CANDIDATES]] + [(served, row) for row in rows[number] if served]
        near = [
            (edits, row)
            for edits, row in near
            if edits.edits[row][0] != gist.edit_id and edits.gists[row].verbatim == gist.verbatim
        ]
        texts = [edits.gists[row].features.unpack(router.key.weight.device) for edits, row in near]
        verdicts = judge(net, router, verifier, features[number], texts)
        yield [
            FoundConflict(*edits.edits[row], *verdict)
            for (edits, row), verdict in zip(near, verdicts, strict=True)
            if verdict is not None
        ]
