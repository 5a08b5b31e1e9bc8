"""How many vectors a text needs, and where a long one is cut.

`K = ceil(H / (rho * C_H * eta))`: H is what the text tells the model, in nats, its first and its end token included;
C_H what one vector can tell it, eta how much less each of K vectors tells, rho how far that is used. C_H and eta are
measured for each model by `incomes capacity`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from incomes_plugin.errors import InvalidValue


@dataclass(frozen=True)
class VectorCapacity:
    """What vectors of one model hold.

    Attributes:
        nats_per_vector: C_H, information gain of one vector on texts that it does not hold whole.
        efficiency: eta by number of vectors; of numbers in between by interpolation, of larger ones the last.
        rho: share of it that is planned with. The less, the fewer steps a text takes.
    """

    nats_per_vector: float
    efficiency: Mapping[int, float] = field(default_factory=lambda: {1: 1.0})
    rho: float = 0.3

    def __post_init__(self) -> None:
        if not self.nats_per_vector > 0 or not self.efficiency or min(self.efficiency.values()) <= 0:
            raise InvalidValue("a calibration has positive nats per vector and efficiencies", param="capacity")
        if not 0 < self.rho <= 1:
            raise InvalidValue(f"rho is {self.rho}; it is a share from above 0 to 1", param="rho")

    def nats(self, count: int) -> float:
        """What `count` vectors hold together, rho not counted."""
        return self.nats_per_vector * count * self._eta(count)

    def vectors(self, nats: float) -> int:
        """The smallest K that holds `nats` (a text's H)."""
        count = 1
        while self.rho * self.nats(count) < nats:
            count += 1
        return count

    def _eta(self, count: int) -> float:
        known = sorted(self.efficiency.items())
        for (low, at_low), (high, at_high) in pairwise(known):
            if low <= count <= high:
                share = (math.log(count) - math.log(low)) / (math.log(high) - math.log(low))
                return at_low + share * (at_high - at_low)
        return known[0][1] if count < known[0][0] else known[-1][1]

    @classmethod
    def read(cls, file: Path, model: str, rho: float) -> VectorCapacity:
        """From `verbatim-capacity.json` of `incomes capacity`.

        Args:
            model: hash of the model that it is for.

        Raises:
            InvalidValue: the file has no calibration, or another model's.
        """
        try:
            document = json.loads(file.read_text())
            found, made_for = document["calibration"], document["origin"]["model"]
            efficiency = {int(k): float(v) for k, v in found["efficiency"].items()}
            calibration = cls(float(found["nats_per_vector"]), efficiency, rho)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidValue(
                f"{file} holds no calibration ({error!r}); make one with `incomes capacity MODEL`", param="capacity"
            ) from error
        if made_for != model:
            raise InvalidValue(
                f"{file} was measured with the model {made_for}, this one is {model}: measure it with `incomes "
                "capacity MODEL`, then give --capacity", param="capacity",
            )  # fmt: skip
        return calibration


MOST_CHUNK_VECTORS, MOST_CHUNK_TOKENS = 8, 256


def cuts(surprisal: Sequence[float], most_nats: float, most_tokens: int = MOST_CHUNK_TOKENS) -> list[int]:
    """Where chunks end: ascending places, the last one the number of tokens.

    A chunk takes tokens until `most_nats` or `most_tokens` are reached, then ends in front of the most surprising token
    of its last quarter: that token loses least when it can no longer see what stands before it.

    Args:
        surprisal: nats of each token, without the end token.
    """
    found, begin = list[int](), 0
    while begin < len(surprisal):
        end, nats = begin, 0.0
        while (
            end < len(surprisal) and end - begin < most_tokens and (end == begin or nats + surprisal[end] <= most_nats)
        ):
            nats += surprisal[end]
            end += 1
        if end < len(surprisal):
            first = max(begin + 1, end - (end - begin) // 4)
            end = max(range(first, end + 1), key=lambda place: (surprisal[place], place))
        found.append(end)
        begin = end
    return found
