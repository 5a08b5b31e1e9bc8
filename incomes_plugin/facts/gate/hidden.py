"""The fixed hidden layer of the fact memory: winner-take-all over prototypes of the model's own keys.

    key k      writes to the unit nearest to it       argmin_f |k - c_f|
    token d    reads the units that it excites most   top-w of d . c_f      d: its direction, `selection/routing.py`

A question does not look like the keys it asks for, so whether a fact will be found is checked with the direction that
a question about it is expected to have, a linear function of its key fitted to the model: `expected`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

_AT_ONCE = 4096
_ROUNDS = 6
_PENALTY = 1.0


@dataclass(frozen=True)
class HiddenLayer:
    """Weights of the layer; a model has one, whatever its edit sets hold.

    Attributes:
        prototypes: `[F, R]` float32, c.
        question: `[R, R]`, and
        offset: `[R]`: a question about key k is expected to look in direction k @ question + offset.
        winners: w, units that a token reads.
    """

    prototypes: torch.Tensor
    question: torch.Tensor
    offset: torch.Tensor
    winners: int

    @property
    def num_units(self) -> int:
        """F."""
        return len(self.prototypes)

    def to(self, device: torch.device) -> HiddenLayer:
        """The same layer on a device."""
        parts = ("prototypes", "question", "offset")
        return replace(self, **{name: getattr(self, name).to(device) for name in parts})  # type: ignore[arg-type]

    def nearest(self, keys: torch.Tensor) -> torch.Tensor:
        """Unit `[n]` int64 that each key `[n, R]` writes to."""
        half = self.prototypes.square().sum(dim=1) / 2
        return torch.cat([(part.float() @ self.prototypes.T - half).argmax(dim=1) for part in keys.split(_AT_ONCE)])

    def read(self, directions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Excitations and units `[T, w]` that directions `[T, R]` read, most excited first."""
        found = (directions.float() @ self.prototypes.T).topk(min(self.winners, self.num_units), dim=-1)
        return found.values, found.indices

    def expected(self, keys: torch.Tensor) -> torch.Tensor:
        """Directions `[n, R]` of questions about keys `[n, R]`."""
        return keys.float() @ self.question + self.offset


def fit_hidden(
    keys: torch.Tensor, asked: torch.Tensor, answering: torch.Tensor, *, units: int, winners: int, seed: int = 0
) -> HiddenLayer:
    """Prototypes by k-means of keys, and the map from a key to a question about it by ridge regression.

    Args:
        keys: `[n, R]`, n >= `units`.
        asked: `[B, R]`, directions of tokens that ask.
        answering: `[B, R]`, the key that each of them should find.
    """
    extended = torch.cat([answering.double(), torch.ones(len(answering), 1, dtype=torch.float64)], dim=1)
    normal = extended.T @ extended + _PENALTY * torch.eye(extended.shape[1], dtype=torch.float64)
    solved = torch.linalg.solve(normal, extended.T @ asked.double()).float()
    return HiddenLayer(_prototypes(keys.float(), units, seed), solved[:-1], solved[-1], winners)


def _prototypes(keys: torch.Tensor, units: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    centres = keys[torch.randperm(len(keys), generator=generator)[:units]].clone()
    none = torch.empty(0, 0)
    for _ in range(_ROUNDS):
        nearest = HiddenLayer(centres, none, none, 1).nearest(keys)
        sums = torch.zeros_like(centres).index_add_(0, nearest, keys)
        counts = nearest.bincount(minlength=units)[:, None]
        spare = keys[torch.randint(len(keys), (units,), generator=generator)]  # a unit that won nothing starts anew
        centres = torch.where(counts > 0, sums / counts.clamp_min(1), spare)
    return centres
