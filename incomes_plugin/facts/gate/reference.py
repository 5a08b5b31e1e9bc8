"""The gate by definition: a set of entries for each unit, one token at a time. What the memory is tested against."""

from __future__ import annotations

import torch

from incomes_plugin.facts.gate.file import FactGate


def candidates(gate: FactGate, keys: torch.Tensor, direction: torch.Tensor, zero: float, room: int) -> set[int]:
    """Entries that a token may read, of all entries with keys `[n, R]`.

    Args:
        direction: `[R]`.
        zero: its zero-gist's logit, before it grows with N.
        room: entries of a unit.
    """
    units: dict[int, list[int]] = {}
    exact = set()
    for place, key in enumerate(keys.float()):
        unit = int((gate.hidden.prototypes - key).square().sum(dim=1).argmin())
        if unit in winners(gate, key @ gate.hidden.question + gate.hidden.offset) and len(units.get(unit, [])) < room:
            units.setdefault(unit, []).append(place)
        else:
            exact.add(place)
    excited = winners(gate, direction)
    if float(gate.hidden.prototypes[excited[0]] @ direction) - zero < gate.reach:
        return exact
    return exact.union(*(units.get(unit, []) for unit in excited))


def winners(gate: FactGate, direction: torch.Tensor) -> list[int]:
    """Units that a direction `[R]` reads, most excited first."""
    ordered: list[int] = (gate.hidden.prototypes @ direction).argsort(descending=True).tolist()
    return ordered[: gate.hidden.winners]
