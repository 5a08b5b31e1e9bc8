"""Finds the edits with the best routing scores for a question: among all edits, or among those that an index names.

in: a question's directions and weights, the route keys of the edits it may see; out: the best few, with their cosines.
An edit's score is exact either way. In a large set the choice of edits to compare with all tokens of a long question is
approximate: those that are best by its heaviest tokens. With an index it is those that own the tokens nearest to the
question's tokens; edits that the index does not hold yet are always compared.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from incomes_plugin.selection.routing import RouteKeys, similarities
from incomes_plugin.selection.token_index import IndexedRows

_NEAREST = 256
"""Tokens that the index names for each token of a question."""

_COMPARED = 256
"""Edits of an index, or of a large set, that are compared exactly."""

_LEAST_WEIGHT = 0.36
"""Tokens of the question with less than this share of the mean weight are not looked up in the index. The exact
comparison uses them all the same."""


_HEAVIEST = 32
"""Tokens of a question by which the edits of a large set are compared first."""

_FEW = 16
"""Tokens of a question up to which they are compared at once. Measured on a CPU: with 10,000 edits a product with 17 to
31 columns takes a third longer than one with 32, which takes as long as one with 15."""

_LARGE = 2000
"""Edits of a large set: of a smaller one all are compared with all tokens within a millisecond."""


def best_edits(
    weights: torch.Tensor, directions: torch.Tensor, table: RouteKeys, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The edits of largest score, best first: at most `count`.

    Args:
        weights: `[T]`.
        directions: `[T, R]` float32.

    Returns:
        The edits `[c]` int64, and max_j cos `[T, c]` float32 of each with every token of the question.
    """
    rows = None if table.index is None else table.index.rows
    if rows is not None:
        parts = _edits_to_compare(weights, directions, table, rows)
    elif table.num_edits > _LARGE and len(weights) > _FEW:
        parts = [_best_by_the_heaviest(weights, directions, table)]
    else:
        similar = similarities(directions, table)
        best = (weights @ similar).topk(min(count, table.num_edits)).indices
        return best, similar[:, best]
    edits = torch.cat([own for own, _ in parts])
    similar = torch.cat([similarities(directions, part) for _, part in parts], 1)
    best = (weights @ similar).topk(min(count, len(edits))).indices
    return edits[best], similar[:, best]


def best_readable(
    weights: torch.Tensor, directions: torch.Tensor, table: RouteKeys, count: int, may_read: Callable[[int], bool]
) -> tuple[torch.Tensor, torch.Tensor]:
    """`best_edits` of those that may be read. While some of the best may not, it looks further."""
    asked = count
    while True:
        found, similar = best_edits(weights, directions, table, asked)
        kept = [place for place, edit in enumerate(found.tolist()) if may_read(edit)][:count]
        if len(kept) == len(found):
            return found, similar
        if len(kept) == count or len(found) < asked:
            return found[kept], similar[:, kept]
        asked *= 4


def _best_by_the_heaviest(
    weights: torch.Tensor, directions: torch.Tensor, table: RouteKeys
) -> tuple[torch.Tensor, RouteKeys]:
    """The edits that are best by the heaviest tokens of a question; tokens of no weight are added to fewer."""
    weights, heaviest = weights.topk(min(_HEAVIEST, len(weights)))
    missing = _HEAVIEST - len(heaviest)
    compared = F.pad(directions[heaviest], (0, 0, 0, missing))
    scores = F.pad(weights, (0, missing)) @ similarities(compared, table)
    best = scores.topk(min(_COMPARED, table.num_edits)).indices
    if table.owners is None:
        return best, RouteKeys(table.keys[best], None, len(best))
    named = torch.zeros(table.num_edits + 1, dtype=torch.bool, device=best.device)
    named[best] = True
    return _edits_in_rows(table, named[table.owners.clamp(max=table.num_edits)].nonzero()[:, 0])


def _edits_to_compare(
    weights: torch.Tensor, directions: torch.Tensor, table: RouteKeys, rows: IndexedRows
) -> list[tuple[torch.Tensor, RouteKeys]]:
    """The edits to compare exactly: those that the index names, and those that it does not hold."""
    assert table.owners is not None
    covered = min(rows.covered, len(table.keys))
    owned = table.owners[:covered].clamp(max=table.num_edits)
    owners = rows.owners(owned, table.num_edits)
    asked = weights >= _LEAST_WEIGHT * weights.mean()  # one at least, however many there are
    cosines, numbers = rows.index.nearest(directions[asked], owners < table.num_edits, _NEAREST)
    named = torch.zeros(table.num_edits + 1, dtype=torch.bool)
    named[_best_by_the_index(weights[asked], cosines, numbers, owners)] = True
    return [
        _edits_in_rows(table, named[owned].nonzero()[:, 0]),
        _edits_in_rows(table, slice(covered, len(table.keys))),
    ]


def _best_by_the_index(
    weights: torch.Tensor, cosines: torch.Tensor, numbers: torch.Tensor, owners: torch.Tensor
) -> torch.Tensor:
    """The edits with the best scores by the cosines that the index gives. For a token near which an edit has none, the
    cosine of the farthest token that was named is assumed: it cannot be larger."""
    found = numbers >= 0
    least = cosines.where(found, 2.0).amin(1, keepdim=True)
    token = torch.arange(len(weights))[:, None].expand_as(numbers)[found]
    gain = (weights[:, None] * (cosines - least))[found]
    # An edit counts once for each token of the question: with its nearest token.
    pairs, pair = (owners[numbers[found]] * len(weights) + token).unique(return_inverse=True)
    best = gain.new_zeros(len(pairs)).scatter_reduce(0, pair, gain, "amax")
    edits, edit = (pairs // len(weights)).unique_consecutive(return_inverse=True)
    scores = gain.new_zeros(len(edits)).index_add(0, edit, best)
    return edits[scores.topk(min(_COMPARED, len(edits))).indices]


def _edits_in_rows(table: RouteKeys, rows: torch.Tensor | slice) -> tuple[torch.Tensor, RouteKeys]:
    """The edits that own some of these rows, and a table of all rows of these edits."""
    assert table.owners is not None
    edits, owners = table.owners[rows].unique(return_inverse=True)
    edits = edits[edits < table.num_edits]
    return edits, RouteKeys(table.keys[rows], owners, len(edits))
