"""What a least-squares memory recalls of N facts with keys like these: not in general position, as theory has them.

    Q      (N / (1 + delta) S + penalty I)^-1, delta = tr S Q    what (X'X + penalty I)^-1 is for N keys of covariance S
    a_i    k_i' Q k_i                   strength of fact i: it scores a / (1 + a)
    c_im   k_m' Q k_i / a_i             score of fact m for the question of i, where i's own is 1
    noise  1 / (a_i U)                  variance of both, as codes are not orthogonal; a wrong score has 1 / U more

Averaged over measured keys: questions that look alike count as they do, where an effective width only averages them.
"""

from __future__ import annotations

import math

import torch

from incomes_plugin.facts.memories.rules import PENALTY
from incomes_plugin.facts.theory import LIKELY

ASKED = 200
"""Keys whose recall is averaged; all others are what they may be taken for."""

MULTIPLE = 64
_NODES, _SPREAD = 33, 6.0
_ROUNDS = 100
_MOST_WIDTH = 1 << 16
_MOST_FACTS = 1 << 24


class MeasuredKeys:
    """Recall of memories of any size, of keys like a sample `[n, E]` of length 1."""

    def __init__(self, keys: torch.Tensor) -> None:
        self._keys = keys.double()
        variances, self._directions = torch.linalg.eigh(self._keys.T @ self._keys / len(keys))
        self._variances = variances.clamp_min(0)

    def recall(self, facts: int, value_width: float) -> float:
        """Expected share of `facts` facts that come back from values of width U."""
        if facts < 2:
            return 1.0
        strengths, others = self._scores(facts)
        right = (strengths * value_width).rsqrt()
        wrong = (right.square() + 1 / value_width).sqrt()[:, None]
        steps = torch.linspace(-_SPREAD, _SPREAD, _NODES, dtype=torch.float64)
        weights = torch.softmax(-steps.square() / 2, dim=0)
        more = (facts - 1) / (len(self._keys) - 1)
        share = torch.zeros_like(right)
        for step, weight in zip(steps, weights, strict=True):
            beyond = torch.erfc(((1 + step * right)[:, None] - others) / wrong / math.sqrt(2)) / 2
            share += weight * (more * torch.log1p(-beyond.clamp_max(1 - 1e-12)).sum(dim=1)).exp()
        return float(share.mean())

    def safe_facts(self, value_width: int) -> int:
        """The most facts of which 99 % come back; at least 1."""
        low, high = 1, 2
        while high < _MOST_FACTS and self.recall(high, value_width) >= LIKELY:
            low, high = high, 2 * high
        while high - low > max(1, low // 100):
            middle = (low + high) // 2
            low, high = (middle, high) if self.recall(middle, value_width) >= LIKELY else (low, middle)
        return low

    def width_for(self, facts: int) -> int | None:
        """The next size: the smallest U, a multiple of 64, that recalls 99 %; None = these keys are too much alike."""
        if self.recall(facts, _MOST_WIDTH) < LIKELY:
            return None
        low, high = 0, _MOST_WIDTH // MULTIPLE
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.recall(facts, middle * MULTIPLE) >= LIKELY else (middle, high)
        return high * MULTIPLE

    def _scores(self, facts: int) -> tuple[torch.Tensor, torch.Tensor]:
        """a `[Q]` and c `[Q, n]`; a key is not taken for itself."""
        asked = self._keys[:ASKED] @ self._directions
        weighted = asked * self._resolvent(facts)
        strengths = (weighted * asked).sum(dim=1)
        others = weighted @ (self._keys @ self._directions).T / strengths[:, None]
        return strengths, others.fill_diagonal_(-math.inf)

    def _resolvent(self, facts: int) -> torch.Tensor:
        """Eigenvalues `[E]` of Q, by fixed-point iteration of delta."""
        delta = 0.0
        for _ in range(_ROUNDS):
            found = 1 / (facts * self._variances / (1 + delta) + PENALTY)
            delta = float((self._variances * found).sum())
        return found
