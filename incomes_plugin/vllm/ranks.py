"""Tensor parallelism: each rank has some of the attention heads, and all ranks read the same edits.

Routing looks at the keys of all heads, so they are gathered; rank 0 alone decides what a request reads, and tells the
others. Gists have all heads: every rank keeps all of them in its host memory and takes its own heads of what is picked.
Steps run on every rank alike, so that each collective call here meets its like on the other ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

from incomes_plugin.errors import SelectionFailed

T = TypeVar("T")


class Ranks:
    """This worker among the ranks of its tensor-parallel group.

    Args:
        group: vLLM's, or None where there is one rank.
    """

    def __init__(self, group: Any = None) -> None:
        self._group = group
        self.size: int = 1 if group is None else group.world_size
        self.rank: int = 0 if group is None else group.rank_in_group

    @classmethod
    def of_worker(cls) -> Ranks:
        """As vLLM has laid them out."""
        from vllm.distributed import get_tp_group

        group = get_tp_group()
        return cls(group if group.world_size > 1 else None)

    def own(self, heads: int) -> slice:
        """This rank's part of so many heads; vLLM gives each rank neighbours."""
        count = heads // self.size
        return slice(self.rank * count, (self.rank + 1) * count)

    def gathered(self, own_heads: torch.Tensor, dim: int) -> torch.Tensor:
        """All heads along `dim`, in their order, from each rank's own."""
        return own_heads if self._group is None else self._group.all_gather(own_heads.contiguous(), dim)

    def mean(self, own: torch.Tensor) -> torch.Tensor:
        """The mean over the ranks of a tensor that all of them have."""
        return own if self._group is None else self._group.all_reduce(own) / self.size

    def decided(self, decide: Callable[[], T]) -> T:
        """What rank 0 decides. The others do not decide: what they find could differ, say by an index that is ready
        there and not here.

        Raises:
            SelectionFailed: rank 0 could not; on every rank, so that none waits for it.
        """
        if self._group is None:
            return decide()
        found: tuple[T | None, str | None] = (None, None)
        if self.rank == 0:
            try:
                found = decide(), None
            except Exception as error:  # noqa: BLE001 - the others wait for an answer, whatever happened
                found = None, f"{type(error).__name__}: {error}"
        decided, failed = self._group.broadcast_object(found if self.rank == 0 else None, src=0)
        if failed is not None:
            raise SelectionFailed(f"rank 0 could not route a request: {failed}")
        return decided
