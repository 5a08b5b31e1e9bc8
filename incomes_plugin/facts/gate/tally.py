"""How often the gate answered and how often the exact index did, for the `incomes:fact_gate_` metrics."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Tally:
    """Counters of one worker since its start.

    Attributes:
        none: tokens to which no edit applies, said without a look at any entry.
        few: tokens for which the memory named candidates.
        exact: tokens that searched all entries, because the edit set is too small for the memory to be worth it.
    """

    none: int = 0
    few: int = 0
    exact: int = 0
