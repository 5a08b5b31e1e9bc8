"""What the verifier knows of pairs of tokens, as compiled loops for CPUs.

With tensor operations, each of which touches a few kilobytes, this costs a verification as much as its arithmetic. What
is computed stands in `likeness.py` and `verifier.py`; the tests compare both.

Arrays are C-contiguous. B pairs of a question of T tokens and an edit of E; K numbers about a pair of tokens, the last
four of which are about runs; H heads; N = 1 + T + E.
"""

from __future__ import annotations

import numpy as np

from incomes_plugin.compiled import compiled


@compiled
def liken(
    cosines: np.ndarray, by_part: np.ndarray, present: np.ndarray, least: float, logs: np.ndarray,
    alike: np.ndarray, known: np.ndarray, seen: np.ndarray,
) -> None:  # fmt: skip
    """The numbers about each pair of tokens, and the largest of each token.

    Args:
        cosines: `[B, T, E]` float32, the router's.
        by_part: `[B, T, E, P]` float32, of each feature layer.
        present: `[B, T, E]` bool; of pairs that are not, all numbers are -1.
        least: cosine of the first feature layer above which two tokens are the same.
        logs: log(1 + n) of n = 0, 1, 2, ..., float32.
        alike: `[B, T, E, K]` float32, written over.
        known, seen: `[B, T, K]` and `[B, E, K]` float32, written over.
    """
    pairs, rows, columns = cosines.shape
    parts, kinds = by_part.shape[3], alike.shape[3]
    back = np.zeros((rows + 1, columns + 1), np.int64)  # of the run that ends at the pair before
    ahead = np.zeros((rows + 1, columns + 1), np.int64)  # of the run that begins at the pair
    for pair in range(pairs):
        known[pair] = -1.0
        seen[pair] = -1.0
        for t in range(rows):
            for e in range(columns):
                same = present[pair, t, e] and by_part[pair, t, e, 0] > least
                back[t + 1, e + 1] = back[t, e] + 1 if same else 0
        for t in range(rows - 1, -1, -1):
            for e in range(columns - 1, -1, -1):
                ahead[t, e] = ahead[t + 1, e + 1] + 1 if back[t + 1, e + 1] else 0
        for t in range(rows):
            for e in range(columns):
                own = alike[pair, t, e]
                if not present[pair, t, e]:
                    own[:] = -1.0
                    continue
                own[0] = cosines[pair, t, e]
                for part in range(parts):
                    own[1 + part] = by_part[pair, t, e, part]
                run = back[t + 1, e + 1]
                own[kinds - 4] = 1.0 if run else 0.0
                own[kinds - 3] = logs[run + ahead[t, e] - 1] if run else 0.0
                own[kinds - 2] = 0.0 if run else logs[back[t, e]]
                own[kinds - 1] = 0.0 if run else logs[ahead[t + 1, e + 1]]
                for kind in range(kinds):
                    known[pair, t, kind] = max(known[pair, t, kind], own[kind])
                    seen[pair, e, kind] = max(seen[pair, e, kind], own[kind])


@compiled
def lay_out(terms: np.ndarray, real: np.ndarray, bias: np.ndarray) -> None:
    """The terms of a block's logits of attention, where each belongs.

    Args:
        terms: `[B, T, E, 2H]` float32: of the question's token looking at the edit's, then the other way round.
        real: `[B, N]` bool; tokens that are not are never looked at.
        bias: `[B, H, N, N]` float32, written over.
    """
    pairs, rows, columns, both = terms.shape
    heads, size, first = both // 2, bias.shape[2], 1 + rows
    row = np.empty(size, np.float32)
    for pair in range(pairs):
        for n in range(size):
            row[n] = np.float32(0.0) if real[pair, n] else np.float32(-np.inf)
        for head in range(heads):
            own = bias[pair, head]
            for n in range(size):
                own[n] = row
            for t in range(rows):
                for e in range(columns):
                    if real[pair, first + e]:
                        own[1 + t, first + e] = terms[pair, t, e, head]
                    if real[pair, 1 + t]:
                        own[first + e, 1 + t] = terms[pair, t, e, heads + head]
