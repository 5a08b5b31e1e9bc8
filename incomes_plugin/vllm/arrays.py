"""The numbers of a batch as arrays, for the compiled loops of `cpu_kernels.py`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from incomes_plugin.selection.copying import Copier
from incomes_plugin.vllm.rows import Rows


@dataclass(frozen=True)
class Arrays:
    """The numbers of a batch in the memory of its tensors, as `cpu_kernels.py` takes them: with more slots and wider
    than those in use.

    Attributes:
        keys, values: for each reading layer `[slots, K, W, D]`.
        counts, spelled: `[Q]` int64, tokens of each request's picks and of their spellings.
        bias: `[slots, W]`.
        copy_keys, copy_bias, table, said, cover: `[slots, ...]`.
    """

    keys: list[np.ndarray]
    values: list[np.ndarray]
    counts: np.ndarray
    spelled: np.ndarray
    bias: np.ndarray
    copy_keys: np.ndarray
    copy_bias: np.ndarray
    table: np.ndarray
    said: np.ndarray
    cover: np.ndarray

    def mix(self, logits: torch.Tensor, rows: Rows, copier: Copier, hidden: torch.Tensor) -> None:
        """Put the mixture into rows of the logits `[n, V]` float32.

        Args:
            rows: of each request, in the order of the slots.
            hidden: `[Q, hidden]` of these rows.
        """
        from incomes_plugin.vllm.cpu_kernels import mix_rows

        places = np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows.numpy()
        query, sentinel = (part.detach().numpy() for part in copier.asks(hidden))
        match, again, pick_again, held = _steps_of(copier)
        mix_rows(
            logits.numpy(), places, query, sentinel, match, again, pick_again, held, self.copy_keys, self.table,
            self.copy_bias, self.spelled, self.said, self.cover, _zeros(logits.shape[1]),
        )  # fmt: skip

    def say(self, tokens: torch.Tensor, says: torch.Tensor | None) -> None:
        """See `ReadBatch.say`."""
        from incomes_plugin.vllm.cpu_kernels import say_tokens

        which = np.ones(len(tokens), np.bool_) if says is None else says.numpy()
        say_tokens(tokens.long().numpy(), which, self.table, self.spelled, self.said, self.cover)


@lru_cache(maxsize=1)
def _steps_of(copier: Copier) -> tuple[np.ndarray, ...]:
    """m, u, v and y of a copier that is served: nothing trains it any more."""
    return tuple(part.detach().numpy() for part in copier.steps())


@lru_cache(maxsize=1)
def _zeros(count: int) -> np.ndarray:
    """`[2, count]` zeros that `mix_rows` leaves as zeros."""
    return np.zeros((2, count), np.float32)
