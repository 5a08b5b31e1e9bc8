"""Audit events: one for each applied write, chained by hashes per project, so that a change of the past shows.

hash = sha256(canonical JSON of the event with its number and the hash of the event before)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

FIRST_HASH = "0" * 64
"""What the first event of a project names as the hash before it."""


@dataclass(frozen=True)
class Change:
    """What an event did to one object; states are short words, of an edit set the snapshot's id. None = not there."""

    target: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class AuditEvent:
    """One applied write.

    Attributes:
        sequence: counts from 1 within the project, without gaps.
        actor: id of the key, `open` without keys, `server` for the server's own work.
        action: name of the command, e.g. `replace_edit`.
        request_id: the `x-request-id` of the request; None for the server's own work.
    """

    id: str
    project: str
    sequence: int
    created_at: int
    actor: str
    action: str
    request_id: str | None
    changes: tuple[Change, ...]
    previous_hash: str
    hash: str = ""

    def computed_hash(self) -> str:
        """The hash that the event must have."""
        content: dict[str, Any] = asdict(self)
        del content["hash"]
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def first_break(events: Iterable[AuditEvent]) -> str | None:
    """What is wrong with a project's whole log, in order; None = every event is as it was written, and none is missing
    before the last."""
    previous = FIRST_HASH
    for sequence, event in enumerate(events, start=1):
        if event.sequence != sequence:
            return f"event {sequence} is missing: {event.id} has number {event.sequence}"
        if event.previous_hash != previous:
            return f"event {sequence} ({event.id}) does not follow from the event before it"
        if event.hash != event.computed_hash():
            return f"event {sequence} ({event.id}) was changed after it was written"
        previous = event.hash
    return None
