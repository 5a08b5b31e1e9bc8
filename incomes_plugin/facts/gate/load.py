"""How many entries a fact memory holds safely, what that takes, and the refusal beyond it.

A commit asks before it activates edits (`memory.py`), `incomes plan` before there are any (`plan/gate.py`).
"""

from __future__ import annotations

from incomes_plugin.facts.refusal import refuse_beyond_safe_load

SETTING = "fact_gate_entries"

SPREAD = 2
"""A unit has room for so many times the entries of an even spread."""

LISTED_SHARE = 16
"""One part in so many of the safe load may be on the list that every token searches."""


def unit_room(capacity: int, units: int) -> int:
    """C: entries that a unit has room for."""
    return max(1, -(-SPREAD * capacity // units))


def memory_bytes(capacity: int, units: int) -> int:
    """What the places of all units take."""
    return 4 * units * unit_room(capacity, units)


def next_size(entries: int, listed: int = 0) -> int:
    """The smallest power of two that holds `entries`, `listed` of them on the list that every token searches."""
    return 1 << max(0, max(entries, LISTED_SHARE * listed) - 1).bit_length()


def refuse_entries(entries: int, listed: int, capacity: int, units: int, size: int) -> None:
    """Refuse an edit set that the memory would not hold safely.

    Args:
        entries: of the edit set.
        listed: those of them that every token would have to search.
        capacity: the setting `fact_gate_entries`.
        units: F.
        size: that would be enough.

    Raises:
        PoolFull: with the setting as `param`; names the limit and the next size.
    """
    remedy = (
        f"retire edits, or start the server with {SETTING}={size} ({memory_bytes(size, units):,} bytes) or 0, which "
        "searches all entries"
    )
    for wanted, what, safe in (
        (entries, "entries", capacity),
        (listed, "entries that do not fit their units or do not read back", capacity // LISTED_SHARE),
    ):
        refuse_beyond_safe_load("the fact gate", wanted, what, safe, remedy, param=SETTING)
