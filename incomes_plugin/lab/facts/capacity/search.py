"""N99: the largest number of facts of which a memory still recalls 99 %."""

from __future__ import annotations

from collections.abc import Callable


def largest(recall: Callable[[int], float], guess: int, *, goal: float, ratio: float, stride: float = 1.25) -> int:
    """The largest N that was found to reach `goal`, by bisection; the smallest that failed is at most `ratio` larger.

    Args:
        recall: share of N facts that come back; taken to fall with N.
        guess: where to begin; must be 1 or more.
        ratio: above 1; N and N + 1 are always near enough.
        stride: factor by which a first N that holds and one that does not are looked for.
    """
    low, high = 0, 0
    size = max(1, guess)
    while not (low and high):
        if recall(size) >= goal:
            low, size = size, max(size + 1, round(stride * size))
        else:
            high, size = size, max(1, min(size - 1, round(size / stride)))
            if high == 1:
                return 0
    while high - low > 1 and high > ratio * low:
        middle = round((low * high) ** 0.5)
        middle = min(max(middle, low + 1), high - 1)
        low, high = (middle, high) if recall(middle) >= goal else (low, middle)
    return low
