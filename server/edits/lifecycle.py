"""What an edit version may become. Pure rules: the store asks them inside its transactions.

pending ──► compressing ──► ready
   ▲                 ├────► failed
   │                 └────► conflicted: it is refused for what another edit says
   └── ready, when another model made the gist: compressed again

All but `superseded` may become `retired`; all but `failed`, `conflicted` and `retired` may become `superseded` by a
newer version or by another edit. Any may become `erased`, and stays so.
"""

from __future__ import annotations

from incomes_server.edits.ids import IdPrefix, is_id
from incomes_server.edits.model import EditStatus

from incomes_plugin.errors import EtagMismatch, InvalidValue

S = EditStatus

TRANSITIONS: dict[EditStatus, frozenset[EditStatus]] = {
    S.PENDING: frozenset({S.COMPRESSING, S.READY, S.FAILED, S.CONFLICTED, S.RETIRED, S.SUPERSEDED, S.ERASED}),
    S.COMPRESSING: frozenset({S.READY, S.FAILED, S.CONFLICTED, S.RETIRED, S.SUPERSEDED, S.ERASED}),
    S.READY: frozenset({S.PENDING, S.RETIRED, S.SUPERSEDED, S.ERASED}),
    S.FAILED: frozenset({S.RETIRED, S.ERASED}),
    S.CONFLICTED: frozenset({S.RETIRED, S.ERASED}),
    S.RETIRED: frozenset({S.ERASED}),
    S.SUPERSEDED: frozenset({S.ERASED}),
    S.ERASED: frozenset(),
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


EARLIEST_S, LATEST_S = 946_684_800, 4_102_444_800
"""2000-01-01 and 2100-01-01 in UTC: a time beyond them is a mistake, such as milliseconds for seconds."""


def check_schedule(effective_from: int | None, expires_at: int | None, now: int) -> None:
    """Times between which an edit is in the snapshot.

    Raises:
        InvalidValue: out of bounds, past, or in the wrong order.
    """
    for name, at in (("effective_from", effective_from), ("expires_at", expires_at)):
        if at is not None and not EARLIEST_S <= at <= LATEST_S:
            raise InvalidValue(f"`{name}` lies between the years 2000 and 2100", param=name)
    if expires_at is None:
        return
    if expires_at <= now:
        raise InvalidValue("`expires_at` has passed; give a later time, or do not add the edit", param="expires_at")
    if effective_from is not None and effective_from >= expires_at:
        raise InvalidValue("`effective_from` is before `expires_at`", param="effective_from")


def in_force(effective_from: int | None, expires_at: int | None, now: int) -> bool:
    """Whether a version belongs into the snapshot at that second: from the first on, before the second."""
    return (effective_from is None or effective_from <= now) and (expires_at is None or now < expires_at)


def next_due(effective_from: int | None, expires_at: int | None, now: int) -> int | None:
    """When the clock changes next whether it is in force; None = never."""
    return min((at for at in (effective_from, expires_at) if at is not None and at > now), default=None)
