"""Which gists of a captured edit are stored: those that a token may want to read.

    score of a gist  s_j = w . k_j + b          k_j: its key at the first gist layer, all kv heads
    kept             s_j >= 0, at most `budget`, best first; the best one where none is

Every token of an edit text has its gist, but questions read an answer and what follows it; a gist's key shows whether
it stands for that. Fitted by `training/keeping.py`, applied where a capture ends: in the reference and in the engine.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from incomes_plugin.gist.types import Gist

TENSORS = ("weight", "bias")
"""Names of a rule's tensors, in the adapter file too."""


@dataclass(frozen=True)
class KeepRule:
    """See the module docstring.

    Attributes:
        weight: `[K * D]` float32, w.
        bias: scalar, b.
        budget: most gists an edit keeps; None = as many as score 0 or more.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    budget: int | None = None

    def scores(self, keys: torch.Tensor) -> torch.Tensor:
        """Scores `[G]` float32 of gists with keys `[L', G, K, D]`."""
        return keys[0].flatten(1).float() @ self.weight + self.bias

    def kept(self, keys: torch.Tensor) -> torch.Tensor:
        """Places `[G']` int64 of the gists that stay, ascending; at least one."""
        scores = self.scores(keys)
        wanted = max(1, int((scores >= 0).sum()))
        return scores.topk(min(wanted, self.budget or wanted)).indices.sort().values

    def thin(self, gist: Gist) -> Gist:
        """The same edit with the gists that stay."""
        places = self.kept(gist.keys)
        return replace(gist, keys=gist.keys[:, places], values=gist.values[:, places])
