"""What an edit version may become. Pure rules: the store asks them inside its transactions.

pending ──► compressing ──► ready ──► retired
   ▲  └──────────┬────────►   │  └──► superseded   (a newer version took its place)
   │             └──► failed  │
   └──────────────────────────┘   (made by another model: compressed again)
"""

from __future__ import annotations

from incomes_server.edits.ids import IdPrefix, is_id
from incomes_server.edits.model import EditStatus

from incomes_plugin.errors import EditConflict, InvalidValue

S = EditStatus

TRANSITIONS: dict[EditStatus, frozenset[EditStatus]] = {
    S.PENDING: frozenset({S.COMPRESSING, S.READY, S.FAILED, S.RETIRED, S.SUPERSEDED}),
    S.COMPRESSING: frozenset({S.PENDING, S.READY, S.FAILED, S.RETIRED, S.SUPERSEDED}),
    S.READY: frozenset({S.PENDING, S.RETIRED, S.SUPERSEDED}),
    S.FAILED: frozenset({S.RETIRED, S.SUPERSEDED}),
    S.RETIRED: frozenset(),
    S.SUPERSEDED: frozenset(),
}

WAITING = frozenset({S.PENDING, S.COMPRESSING})
SETTLED = frozenset(S) - WAITING
LIVE = frozenset(S) - {S.RETIRED, S.SUPERSEDED}

MAX_NAME_CHARS = 128


def sources_of(target: EditStatus) -> frozenset[EditStatus]:
    """Every status from which `target` may be reached."""
    return frozenset(status for status, targets in TRANSITIONS.items() if target in targets)


def check_transition(edit_id: str, status: EditStatus, target: EditStatus) -> None:
    """Raise unless `status -> target` is allowed.

    Raises:
        EditConflict: it is not.
    """
    if target not in TRANSITIONS[status]:
        raise EditConflict(f"edit {edit_id} is {status}; it cannot become {target}")


def check_name(name: str) -> str:
    """A name of an edit set that can be told from an id.

    Raises:
        InvalidValue: empty, too long, unprintable, padded, or written like an id.
    """
    if not name or len(name) > MAX_NAME_CHARS or not name.isprintable() or name != name.strip():
        raise InvalidValue(f"an edit set name has 1 to {MAX_NAME_CHARS} printable characters", param="name")
    if is_id(name, IdPrefix.EDIT_SET):
        raise InvalidValue(f"an edit set name must not begin with {IdPrefix.EDIT_SET!s}", param="name")
    return name
