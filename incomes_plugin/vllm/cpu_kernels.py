"""Reading and copying of a decode step as compiled loops, for CPUs.

A decode step has a few rows. Done with tensor operations, each of which touches a few kilobytes, such a step costs more
in calling them than in arithmetic. These loops do the same in one call for a layer and one for the logits: numba
compiles them once. What they compute stands in `selection/reading.py` and `selection/copying.py`; the tests compare
them. They run on one thread, so the reading of many rows is left to tensor operations (`layer.py`).

Arrays are C-contiguous: float32, or int64 where it says so. R = rows, Q = slots of a batch, W and S = most tokens of a
slot.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from incomes_plugin.compiled import compiled

_LEAST = np.float32(1e-37)
"""Of e^y, so that it is told from the 0 of a token that stands nowhere."""

_LANES = 64
_BLOCK = 1024


@compiled
def _exponentials(numbers: np.ndarray, high: float, bits: np.ndarray, powers: np.ndarray, rest: np.ndarray) -> None:
    """Put e^(x - high) in place of each x, correct to 2e-7; e^-87 is the least.

    It is 2^n (1 + polynomial of the rest); n goes into the exponent bits of a float. Both loops become vector
    instructions.

    Args:
        numbers: `[n]`, at most high.
        bits, powers: `[n or more]`, the same memory as int32 and as float32.
        rest: `[n or more]`, written over.
    """
    top = np.float32(high)
    for i in range(numbers.shape[0]):
        power = (numbers[i] - top) * np.float32(1.4426950408889634) + np.float32(127.0)
        power = np.float32(1.0) if power < np.float32(1.0) else power  # NaN stays NaN
        below = np.int32(power)
        rest[i] = power - np.float32(below)
        bits[i] = below << np.int32(23)
    for i in range(numbers.shape[0]):
        x = rest[i]
        p = np.float32(1.8775767e-3) * x + np.float32(8.9893397e-3)
        p = p * x + np.float32(5.5826318e-2)
        p = p * x + np.float32(2.4015361e-1)
        p = p * x + np.float32(6.9315308e-1)
        p = p * x + np.float32(9.9999994e-1)
        numbers[i] = p * powers[i]


@compiled
def _turn_back(
    turned: np.ndarray, cosine: np.ndarray, sine: np.ndarray, rotary_dim: int, neox: bool, plain: np.ndarray
) -> None:
    """Undo the rotary embedding of one head `[D]`; see `Unrotation`."""
    half = rotary_dim // 2
    if neox:
        for d in range(half):
            plain[d] = turned[d] * cosine[d] + turned[d + half] * sine[d]
        for d in range(half, rotary_dim):
            plain[d] = turned[d] * cosine[d] + turned[d - half] * sine[d]
    else:
        for d in range(0, rotary_dim, 2):
            plain[d] = turned[d] * cosine[d] + turned[d + 1] * sine[d]
            plain[d + 1] = turned[d + 1] * cosine[d + 1] + turned[d] * sine[d + 1]
    for d in range(rotary_dim, turned.shape[0]):
        plain[d] = turned[d]


@compiled
def _add_product(numbers: np.ndarray, matrix: np.ndarray, out: np.ndarray) -> None:
    """Add `numbers [D] @ matrix [D, D]` to `out`: four rows at once, so that `out` is loaded and stored seldom."""
    whole = numbers.shape[0] // 4 * 4
    for d in range(0, whole, 4):
        one, two, three, four = numbers[d], numbers[d + 1], numbers[d + 2], numbers[d + 3]
        first, second, third, fourth = matrix[d], matrix[d + 1], matrix[d + 2], matrix[d + 3]
        for i in range(first.shape[0]):
            out[i] += one * first[i] + two * second[i] + three * third[i] + four * fourth[i]
    for d in range(whole, numbers.shape[0]):
        one, first = numbers[d], matrix[d]
        for i in range(first.shape[0]):
            out[i] += one * first[i]


@compiled
def read_rows(
    own: np.ndarray, query: np.ndarray, cosine: np.ndarray, sine: np.ndarray, rotary_dim: int, neox: bool,
    query_map: np.ndarray, zero_query: np.ndarray, zero_bias: np.ndarray, output_map: np.ndarray,
    keys: np.ndarray, values: np.ndarray, bias: np.ndarray, counts: np.ndarray, slots: np.ndarray, weights: np.ndarray,
) -> None:  # fmt: skip
    """One layer's reading: `own` becomes `(1 - g) o_self + g o_edit`.

    Args:
        own: `[R, H, D]`, o_self; written over.
        query: `[R, H, D]`, after rotary embedding.
        cosine, sine: `[R, D]`; these, rotary_dim and neox as in `Unrotation`.
        query_map: `[H, D, D]`, A_q / sqrt(D).
        zero_query, zero_bias: `[H, D]` and `[H]`, z and the logit that the zero-gist has by itself.
        output_map: `[H, D, D]`, U.
        keys, values: `[Q, K, W, D]`.
        bias: `[Q, W]`, b.
        counts: `[Q]` int64, tokens of each slot.
        slots: `[R]` int64, slot of each row.
        weights: `[R, H, W]`, written over for the tokens of a row's slot: g times the weight of each.
    """
    num_heads, dim = query_map.shape[0], query_map.shape[1]
    group, width = num_heads // keys.shape[1], weights.shape[2]
    plain, mapped, taken = np.empty(dim, np.float32), np.empty(dim, np.float32), np.empty(dim, np.float32)
    bits, rest = np.empty(width, np.int32), np.empty(width, np.float32)
    powers = bits.view(np.float32)
    for head in range(num_heads):  # the maps of a head stay in the first-level cache for all rows
        kv = head // group
        for row in range(own.shape[0]):
            slot = slots[row]
            count = counts[slot]
            _turn_back(query[row, head], cosine[row], sine[row], rotary_dim, neox, plain)
            zero = zero_bias[head]
            for d in range(dim):
                zero += plain[d] * zero_query[head, d]
                mapped[d] = 0.0
                taken[d] = 0.0
            _add_product(plain, query_map[head], mapped)
            shares, most = weights[row, head, :count], zero
            for token in range(count):
                key, logit = keys[slot, kv, token], bias[slot, token]
                for d in range(dim):
                    logit += mapped[d] * key[d]
                shares[token] = logit
                most = max(most, logit)
            _exponentials(shares, most, bits, powers, rest)
            kept = np.float32(math.exp(zero - most))
            total = kept
            for token in range(count):
                total += shares[token]
            kept /= total
            for token in range(count):
                shares[token] /= total
                share, value = shares[token], values[slot, kv, token]
                for d in range(dim):
                    taken[d] += share * value[d]
            out = own[row, head]
            for d in range(dim):
                out[d] *= kept
            _add_product(taken, output_map[head], out)


@compiled
def _log_total(
    row: np.ndarray, shift: np.float32, block: np.ndarray, bits: np.ndarray, powers: np.ndarray, rest: np.ndarray
) -> float:
    """Log of the sum of the exponentials of a row, which is shifted afterwards.

    Args:
        row: `[V]`; `shift` is added to it.
        block, bits, powers, rest: `[_BLOCK]`, written over; see `_exponentials`.
    """
    size = row.shape[0]
    lanes = np.full(_LANES, -np.inf, np.float32)
    whole = size // _LANES * _LANES
    for start in range(0, whole, _LANES):  # a loop over a fixed number of places becomes vector instructions
        for i in range(_LANES):
            lanes[i] = row[start + i] if row[start + i] > lanes[i] else lanes[i]
    most = float(lanes.max())
    for i in range(whole, size):
        most = max(most, row[i])
    if most == -np.inf:
        return most  # nothing to shift
    total = 0.0
    for start in range(0, size, _BLOCK):
        source = row[start : start + _BLOCK]
        part = block[: source.shape[0]]
        for i in range(source.shape[0]):
            part[i] = source[i]
            source[i] += shift
        _exponentials(part, most, bits, powers, rest)
        of_block: Any = np.float32(0.0)
        for i in range(part.shape[0]):
            of_block += part[i]
        total += of_block
    return most + math.log(total)


@compiled
def _agreeing(table: np.ndarray, said: np.ndarray, place: int) -> int:
    """How many tokens in front of a place of an edit the answer has said last."""
    found = 0
    while found < said.shape[0] and table[place, 1 + found] == said[found]:
        found += 1
    return found


@compiled
def mix_rows(
    logits: np.ndarray, rows: np.ndarray, query: np.ndarray, sentinel: np.ndarray, match: np.ndarray, again: np.ndarray,
    pick_again: np.ndarray, held: np.ndarray, keys: np.ndarray, table: np.ndarray, bias: np.ndarray, counts: np.ndarray,
    said: np.ndarray, cover: np.ndarray, zeros: np.ndarray,
) -> None:  # fmt: skip
    """The mixture of each slot's row of logits, in place; see `copying.mixed`.

    Args:
        logits: `[n, V]`.
        rows: `[Q]` int64, of the logits.
        query: `[Q, C]`, Q h / sqrt(N C).
        sentinel: `[Q]`, z_0.
        match, again, pick_again, held: m, u, v and y of 0, 1, 2, ...
        keys: `[Q, S, C]`; table: `[Q, S, 6]` int64; bias: `[Q, S]`; counts: `[Q]` int64, tokens of each slot.
        said: `[Q, 3]` int64; cover: `[Q, S]` int64.
        zeros: `[2, V]`, and zeros again afterwards.
    """
    bits = np.empty(_BLOCK, np.int32)
    powers, rest, block = bits.view(np.float32), np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32)
    scores, of_pick = np.empty(keys.shape[1], np.float32), np.empty(keys.shape[1], np.int64)
    left = np.empty(keys.shape[1], np.float32)  # e^y of each place
    mass, kept = zeros[0], zeros[1]  # of each token: what is copied of it, and e^y; 0 for one that stands nowhere
    for slot in range(rows.shape[0]):
        row, count, own = logits[rows[slot]], counts[slot], table[slot]
        of_pick[:count] = 0
        several = False
        for place in range(count):
            of_pick[own[place, 5]] = max(of_pick[own[place, 5]], cover[slot, place])
            several = several or own[place, 5] > 0
        most = sentinel[slot]
        for place in range(count):
            key, score = keys[slot, place], bias[slot, place]
            for c in range(key.shape[0]):
                score += query[slot, c] * key[c]
            matches = _agreeing(own, said[slot], place)
            covered = of_pick[own[place, 5]]
            score += match[matches] + again[cover[slot, own[place, 4]]] + pick_again[covered, matches]
            scores[place] = score
            left[place] = max(np.float32(math.exp(held[covered, matches])), _LEAST) if several else np.float32(1.0)
            most = max(most, score)
        nothing = math.exp(sentinel[slot] - most)
        total = nothing
        for place in range(count):
            scores[place] = np.float32(math.exp(scores[place] - most))
            total += scores[place]
        log_nothing = np.float32(sentinel[slot] - most - math.log(total))
        height = _log_total(row, log_nothing, block, bits, powers, rest)
        for place in range(count):
            token = own[place, 0]
            mass[token] += np.float32(scores[place] / total)
            kept[token] = max(kept[token], left[place])
        for place in range(count):
            token = own[place, 0]
            if kept[token] > 0.0:  # the token's first place
                base = row[token] + math.log(kept[token])
                copied = height + math.log(mass[token]) if mass[token] > 0.0 else -np.inf
                mass[token], kept[token] = 0.0, 0.0
                above, below = max(base, copied), min(base, copied)
                row[token] = above if below == -np.inf else above + math.log1p(math.exp(below - above))


@compiled
def say_tokens(
    tokens: np.ndarray, says: np.ndarray, table: np.ndarray, counts: np.ndarray, said: np.ndarray, cover: np.ndarray
) -> None:
    """The answers go on by one token: `said` and `cover` are brought up to it; see `copying.covering`.

    Args:
        tokens: `[Q]` int64.
        says: `[Q]` bool, which answers do.
        table, counts, said, cover: as in `mix_rows`; the last two are written over.
    """
    for slot in range(tokens.shape[0]):
        if not says[slot]:
            continue
        own, last = table[slot], said[slot]
        for place in range(counts[slot]):
            if own[place, 0] == tokens[slot]:
                at = own[place, 4]
                cover[slot, at] = max(cover[slot, at], 1 + _agreeing(own, last, place))
        for i in range(last.shape[0] - 1, 0, -1):
            last[i] = last[i - 1]
        last[0] = tokens[slot]
