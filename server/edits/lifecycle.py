"""What an edit version may become. Pure rules: the store asks them inside its transactions.

pending ──► compressing ──► ready
   ▲                 └────► failed
   └── ready, when another model made the gist: compressed again

All but `superseded` may become `retired`; all but `failed` and `retired` may become `superseded` by a newer version.
"""

from __future__ import annotations

from incomes_server.edits.ids import IdPrefix, is_id
from incomes_server.edits.model import EditStatus

from incomes_plugin.errors import EtagMismatch, InvalidValue

S = EditStatus

TRANSITIONS: dict[EditStatus, frozenset[EditStatus]] = {
    S.PENDING: frozenset({S.COMPRESSING, S.READY, S.FAILED, S.RETIRED, S.SUPERSEDED}),
    S.COMPRESSING: frozenset({S.READY, S.FAILED, S.RETIRED, S.SUPERSEDED}),
    S.READY: frozenset({S.PENDING, S.RETIRED, S.SUPERSEDED}),
    S.FAILED: frozenset({S.RETIRED}),
    S.RETIRED: frozenset(),
    S.SUPERSEDED: frozenset(),
}


def sources_of(target: EditStatus) -> frozenset[EditStatus]:
    """Every status from which `target` may be reached in one step. The store's updates are limited to these."""
    return frozenset(status for status, targets in TRANSITIONS.items() if target in targets)


WAITING = sources_of(S.READY)
"""Statuses of edits that wait for the compressor."""

SETTLED = frozenset(S) - WAITING
"""Statuses of edits that the compressor is done with."""


def check_version(name: str, version: int, accepted: tuple[int, ...] | None) -> None:
    """The caller has read one of the accepted versions (None: any will do).

    Raises:
        EtagMismatch: it has changed since.
    """
    if accepted is not None and version not in accepted:
        raise EtagMismatch(f"{name} is at version {version} now; read it again, then decide", param="If-Match")


MAX_NAME_CHARS = 128


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
