"""Recursive least squares: facts enter and leave a linear memory, which at any time equals a ridge solve of its facts.

    insert  G = (I + X P X')^-1 X P    W += (U - X W')' G    P -= P X' G
    delete  G = (I - X P X')^-1 X P    W -= (U - X W')' G    P += P X' G        by the keys and values of the log

P is the inverse of X'X + penalty I. State is float64: a few MB buy an error of
1e-14 after thousands of deletes (float32: 1e-6), and small penalties need it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from incomes_plugin.errors import InvalidValue
from incomes_plugin.lab.facts.memories.linear import LinearMemory
from incomes_plugin.lab.facts.memories.rules import PENALTY
from incomes_plugin.lab.facts.memories.whitening import Whitening

BLOCK = 64
"""Facts of one update; a block is solved as one small system."""

LEAST_PIVOT = 1e-3
"""A downdate whose system has a smaller pivot would lose too many digits: the memory is rebuilt instead."""


class RecursiveMemory(LinearMemory):
    """A linear memory with a log of its facts.

    Args:
        key_width, value_width: E and U.
        penalty: of the ridge regression it equals.
        whitening: applied to keys and queries.
        dtype: of the state; the log is float32.

    Attributes:
        inverse: P `[E, E]`.
        rebuilds: how often a delete had to solve anew.
    """

    inverse: torch.Tensor

    def __init__(
        self,
        key_width: int,
        value_width: int,
        *,
        penalty: float = PENALTY,
        whitening: Whitening | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        least = 1e4 * torch.finfo(dtype).eps  # below it, 1 / penalty drowns what an insert takes from P
        if penalty < least:
            raise InvalidValue(f"a penalty of {penalty}: must be at least {least:.0e} in {dtype}", param="penalty")
        super().__init__(torch.zeros(value_width, key_width, dtype=dtype), whitening)
        self.register_buffer("inverse", torch.eye(key_width, dtype=dtype) / penalty)
        self.penalty = penalty
        self.rebuilds = 0
        self._log: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def __len__(self) -> int:
        """Facts in the memory."""
        return len(self._log)

    def __contains__(self, name: str) -> bool:
        return name in self._log

    @property
    def ids(self) -> list[str]:
        """Of all facts, oldest first."""
        return list(self._log)

    def insert(self, ids: Sequence[str], keys: torch.Tensor, values: torch.Tensor) -> None:
        """Add facts.

        Args:
            keys: `[B, E]`, before whitening.
            values: `[B, U]`.

        Raises:
            InvalidValue: an id twice, a shape that does not fit, a number that is not finite.
        """
        self._check(ids, keys, values)
        known, wanted = self.keys(keys).float(), values.float()
        self._log.update({name: (known[i].clone(), wanted[i].clone()) for i, name in enumerate(ids)})
        for some, theirs in zip(known.split(BLOCK), wanted.split(BLOCK), strict=True):
            self._update(some, theirs, sign=1)

    def delete(self, ids: Sequence[str]) -> None:
        """Take facts out: exact, as if they had never been there.

        Raises:
            InvalidValue: an id that is not there, or twice.
        """
        missing = [name for name in ids if name not in self._log]
        if missing or len(set(ids)) < len(ids):
            raise InvalidValue(f"{missing[0] if missing else 'an id'!r} is not in the memory (once)", param="ids")
        gone = [self._log.pop(name) for name in ids]
        for first in range(0, len(gone), BLOCK):
            keys, values = (torch.stack(part) for part in zip(*gone[first : first + BLOCK], strict=True))
            if not self._update(keys, values, sign=-1):
                self.rebuilds += 1
                self.rebuild()
                return

    def drift(self) -> float:
        """|W - W rebuilt| / |W rebuilt| in the Frobenius norm; 0 for an empty memory that is empty."""
        matrix, _ = self._solved()
        return float((self.matrix - matrix).norm() / matrix.norm().clamp_min(torch.finfo(torch.float32).tiny))

    def rebuild(self) -> None:
        """Solve for all facts of the log anew."""
        matrix, inverse = self._solved()
        self.matrix.copy_(matrix)
        self.inverse.copy_(inverse)

    def _update(self, keys: torch.Tensor, values: torch.Tensor, sign: int) -> bool:
        """Add (1) or take out (-1) a block; False where that would be inexact, and then nothing has changed."""
        keys, values = keys.to(self.matrix), values.to(self.matrix)
        projected = keys @ self.inverse
        system = torch.eye(len(keys)).to(projected) + sign * projected @ keys.T
        factor, failed = torch.linalg.cholesky_ex(system)
        if int(failed) or float(factor.diagonal().min()) ** 2 < LEAST_PIVOT:
            return False
        half = torch.linalg.solve_triangular(factor, projected, upper=False)
        gain = torch.linalg.solve_triangular(factor.T, half, upper=True)
        self.matrix.addmm_((values - keys @ self.matrix.T).T, gain, alpha=sign)
        self.inverse.addmm_(half.T, half, alpha=-sign)  # a square: P stays symmetric
        return True

    def _solved(self) -> tuple[torch.Tensor, torch.Tensor]:
        """W and P of the facts in the log, by one factorisation in float64."""
        width = self.matrix.shape[1]
        normal = self.penalty * torch.eye(width, dtype=torch.float64)
        right = torch.zeros(width, self.matrix.shape[0], dtype=torch.float64)
        log = list(self._log.values())
        for first in range(0, len(log), 1024):
            keys, values = (torch.stack(part).double().cpu() for part in zip(*log[first : first + 1024], strict=True))
            normal += keys.T @ keys
            right += keys.T @ values
        factor = torch.linalg.cholesky(normal)
        matrix = torch.cholesky_solve(right, factor).T
        return matrix.to(self.matrix), torch.cholesky_inverse(factor).to(self.matrix)

    def _check(self, ids: Sequence[str], keys: torch.Tensor, values: torch.Tensor) -> None:
        value_width, key_width = self.matrix.shape
        wanted = ((len(ids), key_width), (len(ids), value_width))
        if (tuple(keys.shape), tuple(values.shape)) != wanted:
            raise InvalidValue(
                f"keys {tuple(keys.shape)} and values {tuple(values.shape)}: {len(ids)} facts of this memory "
                f"need {wanted[0]} and {wanted[1]}", param="keys",
            )  # fmt: skip
        if not bool(torch.isfinite(keys).all() & torch.isfinite(values).all()):
            raise InvalidValue("keys and values must be finite", param="keys")
        known = [name for name in ids if name in self._log]
        if known or len(set(ids)) < len(ids):
            raise InvalidValue(
                f"{known[0] if known else 'an id'!r} is in the memory already; delete it first", param="ids"
            )
