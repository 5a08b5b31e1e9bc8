"""Compares new gists with the edits of their set: those of its newest snapshot, others that are given, and one another.

in: gists that were just captured; out: for each what it was compared with, and which of these it conflicts with
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from incomes_plugin.gist.edit import Compared, EditKey, FoundConflict
from incomes_plugin.gist.types import Gist
from incomes_plugin.pool.gists import GistPool
from incomes_plugin.pool.table import route_rows
from incomes_plugin.selection.candidates import best_edits
from incomes_plugin.selection.conflicts import CANDIDATES, judge
from incomes_plugin.selection.routing import QUESTION_TOKENS, RouteKeys, distances_from_end

logger = logging.getLogger("incomes.pool")


@dataclass(frozen=True)
class _Candidates:
    """Edits that a new one is compared with, and what routing needs of them."""

    keys: RouteKeys
    edits: Sequence[EditKey]
    gists: Sequence[Gist]


@torch.inference_mode()
def compare(pool: GistPool, edit_set: str, new: Sequence[Gist], others: Sequence[Gist]) -> list[Compared | None]:
    """One answer for each new gist; None where it could not be compared.

    Args:
        others: further edits of the set that the newest snapshot does not have.
    """
    snapshot = pool.newest(edit_set)
    position = 0 if snapshot is None else snapshot.version
    table = None if snapshot is None else _Candidates(snapshot.table.keys, snapshot.table.edits, snapshot.table.gists)
    answers: list[Compared | None] = []
    for number, gist in enumerate(new):
        beside = [*others, *new[:number]]
        try:
            found = tuple(_found(pool, gist, table, beside))
            answers.append(Compared(position, tuple(each.edit for each in beside), found))
        except (RuntimeError, ValueError, MemoryError):
            logger.exception("%s could not be compared with other edits", gist.edit_id)
            answers.append(None)
    return answers


def _found(pool: GistPool, gist: Gist, table: _Candidates | None, beside: Sequence[Gist]) -> Iterator[FoundConflict]:
    adapter = pool.adapter
    router, device = adapter.router, adapter.router.key.weight.device
    features = gist.features.unpack(device)[-QUESTION_TOKENS:]
    weights = router.weights(features, distances_from_end(len(features), device))
    directions = router.directions(features)
    for candidates in (table, _beside(pool, beside)):
        if candidates is None or not candidates.keys.num_edits:
            continue
        rows = best_edits(weights, directions, candidates.keys, CANDIDATES)[0].tolist()
        rows = [row for row in rows if candidates.edits[row][0] != gist.edit_id]
        near = [candidates.gists[row].features.unpack(device) for row in rows]
        for row, verdict in zip(rows, judge(router, adapter.verifier, features, near), strict=True):
            if verdict is not None:
                (edit_id, version), (kind, score) = candidates.edits[row], verdict
                yield FoundConflict(edit_id, version, kind, score)


def _beside(pool: GistPool, gists: Sequence[Gist]) -> _Candidates | None:
    if not gists:
        return None
    parts = [route_rows(pool.adapter.router, gist) for gist in gists]
    owners = torch.cat([torch.full((len(part),), number) for number, part in enumerate(parts)])
    keys = RouteKeys(torch.cat(parts), owners.to(parts[0].device), len(gists))
    return _Candidates(keys, [gist.edit for gist in gists], gists)
